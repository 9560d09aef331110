"""``make bench``: what dividing a model among strong and weak sites brings, seed by seed, beside both baselines.

Ten sites share the images of one data set: five strong ones with few rows and the whole model, five weak ones with
most rows and a part of it. Judged is the whole model, at its last exit, over all test rows; without privacy. The bar
(15 points above the strong sites alone, every seed) is for digits dealt by shares; everything else is shown as it is.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from privacy.errors import ConfigError
from simulations.bench.scored import mean
from simulations.data.deal import KINDS
from simulations.divided import Divided, measure_division
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.reference import federate
from strategies.parts import WHOLE

SCHEMA = "collegium/bench-divided/v1"
_SCENARIOS = ("digits-depth", "digits-width", "digits", "fashion-depth", "fashion-width", "fashion")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs every division over the seeds, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-divided.json")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--scenarios", nargs="+", default=_SCENARIOS)
    chosen = parser.parse_args(arguments)
    found = [row for name in chosen.scenarios for row in _rows(name, chosen.seeds, sys.stderr)]
    result = {"schema": SCHEMA, "seeds": chosen.seeds, "rows": found}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(found)
    sys.stdout.write(f"written: {chosen.out}\n")


def seeded(job: Job, seed: int) -> Job:
    """Returns the job with another seed for everything: who is dealt what, the split, initial model and batches."""
    scenario = job.scenario
    deal = None if scenario.deal is None else replace(scenario.deal, seed=seed)
    return replace(job, seed=seed, scenario=replace(scenario, deal=deal, split=replace(scenario.split, seed=seed)))


def divide(job: Job) -> Divided:
    """Runs a job as plain function calls and scores its parts and baselines."""
    data = load_member_data(job)
    return measure_division(job, data, federate(job, data), ())


def whole_score(found: Divided) -> float:
    """Returns the score of the whole model, of its last exit."""
    return mean(part.score[-1] for part in found.parts if part.name == WHOLE)


def _rows(name: str, seeds: int, progress: TextIO) -> list[dict[str, Any]]:
    rows = []
    for kind in KINDS:
        try:
            job = resolve(Options(scenario=name, privacy="none", settings={"deal": kind}))
            found = []
            for seed in range(seeds):
                found.append(divide(seeded(job, seed)))
                print(f"\r{name}, {kind}: {seed + 1} of {seeds} seeds", end="", file=progress, flush=True)
        except ConfigError as error:
            print(f"{name}, {kind}: left out: {error}", file=progress)
            continue
        print(file=progress)
        rows.append({"scenario": name, "deal": kind, **_summed_up(found)})
    return rows


def _summed_up(found: Sequence[Divided]) -> dict[str, Any]:
    strong = [None if each.strong is None else each.strong.score for each in found]
    whole = [whole_score(each) for each in found]
    known = [(mine, theirs) for mine, theirs in zip(whole, strong, strict=True) if theirs is not None]
    return {
        "whole": whole,
        "strong_only": strong,
        "smallest_for_all": [each.smallest.score for each in found],
        "least_gain": min((mine - theirs for mine, theirs in known), default=None),
        "parts": {part.name: [list(each.parts[k].score) for each in found] for k, part in enumerate(found[0].parts)},
        "fewest_holders": [min(len(region.holders) for region in each.regions) for each in found],
    }


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="Whole model of a divided federation, accuracy, mean over seeds", title_justify="left")
    for heading in ("scenario", "dealt by", "divided", "strong only", "least gain", "all on smallest", "parts"):
        table.add_column(heading)
    for row in rows:
        strong = [score for score in row["strong_only"] if score is not None]
        parts = {
            name: " ".join(f"{statistics.fmean(exits):.3f}" for exits in zip(*scores, strict=True))
            for name, scores in row["parts"].items()
        }
        table.add_row(
            row["scenario"],
            row["deal"],
            f"{statistics.fmean(row['whole']):.3f}",
            f"{statistics.fmean(strong):.3f}" if strong else "-",
            "-" if row["least_gain"] is None else f"{row['least_gain']:+.3f}",
            f"{statistics.fmean(row['smallest_for_all']):.3f}",
            "; ".join(f"{name} {scores}" for name, scores in parts.items()),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
