"""``make bench``: what privacy costs the four hospitals, setting by setting, beside FLamby's published figures.

FLamby's DP-FedAvg is record-level DP-SGD at each hospital (Fed-Heart-Disease, delta 1e-3), with inputs scaled by each
hospital's own statistics, which its epsilon does not cover; ours are scaled by public constants. Central and
distributed noise are compared at the same noise multiplier, unit site; epsilon by RDP on both sides. Nothing here
passes or fails.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from privacy.dp.accounting import INTEGER_ORDERS
from privacy.dp.events import Relation
from privacy.dp.plan import DistributedPlan, SitePlan
from privacy.dp.renyi import divergences
from simulations.bench.scored import mean
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.reference import federate

SCHEMA = "collegium/bench-privacy/v1"
_FLAMBY = {"50": 0.6995, "10": 0.6981, "5": 0.6997, "1": 0.7015, "0.1": 0.6292}
"""Published accuracy by epsilon, mean of 4 hospitals, delta 1e-3, unit record (FLamby, owkin, MIT)."""
_SETTINGS = {
    "record": Options(privacy="record"),
    "distributed, unit record": Options(privacy="distributed"),
    "distributed, unit site": Options(privacy="distributed", settings={"unit": "site"}),
    "site": Options(privacy="site"),
}
_AT = "20"
"""Epsilon at which central and distributed noise meet."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the comparisons, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-privacy.json")
    parser.add_argument("--runs", type=int, default=20, help="runs per setting")
    chosen = parser.parse_args(arguments)
    result = {
        "schema": SCHEMA,
        "runs": chosen.runs,
        "settings": settings(chosen.runs, sys.stderr),
        "central_and_distributed": central_and_distributed(chosen.runs, sys.stderr),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(result)
    sys.stdout.write(f"written: {chosen.out}\n")


def settings(runs: int, progress: TextIO) -> dict[str, dict[str, Any]]:
    """Scores every setting at FLamby's epsilons."""
    found: dict[str, dict[str, Any]] = {}
    for epsilon, published in _FLAMBY.items():
        found[epsilon] = {"flamby": published}
        for name, options in _SETTINGS.items():
            job = resolve(replace(options, epsilon=Decimal(epsilon)))
            found[epsilon][name] = scored(job, runs)
            print(f"privacy, epsilon {epsilon}, {name}: {found[epsilon][name]['mean']:.4f}", file=progress, flush=True)
    return found


def central_and_distributed(runs: int, progress: TextIO) -> dict[str, Any]:
    """Gives a central run and a distributed one the same noise multiplier, and prices both by RDP at integer orders."""
    job = resolve(replace(_SETTINGS["distributed, unit site"], epsilon=Decimal(_AT)))
    plan = job.sum_plan
    if not isinstance(plan, DistributedPlan):
        raise TypeError("the job has no distributed noise")
    central = resolve(replace(_SETTINGS["site"], epsilon=Decimal(_AT)))
    same = replace(_plan_of(central), noise_multiplier=plan.noise_multiplier)
    central.__dict__["sum_plan"] = same  # the one place where a plan is not calibrated: same noise, not same epsilon
    executions = plan.max_executions
    prices = {
        "central": _rdp([same.event(executions)], plan),
        "distributed": _rdp([plan.event(executions)], plan),
        **{
            f"distributed, {shares} shares": _rdp([plan.noise.hypothetical(shares, executions)], plan)
            for shares in (4, 3, 2)
        },
    }
    scores = {"central": scored(central, runs), "distributed": scored(job, runs)}
    print(f"privacy, same noise: {scores}", file=progress, flush=True)
    return {"noise_multiplier": str(plan.noise_multiplier), "epsilon_rdp": prices, "scores": scores}


def scored(job: Job, runs: int) -> dict[str, float]:
    """Returns mean and standard deviation, over runs, of the mean accuracy over the hospitals."""
    data, found = load_member_data(job), []
    for _ in range(runs):
        model = federate(job, data)
        found.append(mean(model.score(site, data[site].test) for site in job.sites))
    return {"mean": statistics.fmean(found), "sd": statistics.stdev(found) if runs > 1 else 0.0}


def _plan_of(job: Job) -> SitePlan:
    if not isinstance(job.sum_plan, SitePlan):
        raise TypeError("the job has no central noise")
    return job.sum_plan


def _rdp(events: Sequence[Any], plan: DistributedPlan) -> float:
    from dp_accounting import rdp  # noqa: PLC0415 - here only: the price at given orders, not a claim

    curve = divergences(tuple(events), INTEGER_ORDERS, Relation.REPLACE_SPECIAL)
    return float(rdp.compute_epsilon(INTEGER_ORDERS, curve, float(plan.delta))[0])


def _show(result: dict[str, Any]) -> None:
    table = Table("epsilon", "FLamby", *_SETTINGS, title="hospitals: what privacy costs", title_justify="left")
    for epsilon, row in result["settings"].items():
        cells = [f"{row[name]['mean']:.4f} ± {row[name]['sd']:.4f}" for name in _SETTINGS]
        table.add_row(epsilon, f"{row['flamby']:.4f}", *cells)
    both = result["central_and_distributed"]
    Console(width=110).print(table)
    scores = {name: f"{found['mean']:.4f} ± {found['sd']:.4f}" for name, found in both["scores"].items()}
    prices = {name: f"{price:.4f}" for name, price in both["epsilon_rdp"].items()}
    Console(width=110).print(
        f"same noise {both['noise_multiplier']} (unit site): accuracy {scores}, epsilon (RDP) {prices}"
    )


if __name__ == "__main__":
    main()
