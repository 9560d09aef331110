"""``make bench``: the figures of the README and rounds per second, as JSON. Run it again and compare.

Speed is a ratio measured in one run: the same app, job and rounds, in process and on Flower's Ray backend, taken in
turns. Absolute times say something about the machine and nothing else. Nothing here passes or fails.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table

from privacy.store.run_folder import METRICS_FILE
from simulations.bench.scored import mean
from simulations.engines import run_local, run_ray
from simulations.harness import Experiment
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.progress import PlainObserver
from simulations.reference import federate, measure

SCHEMA = "collegium/bench/v1"
_FLAMBY = {
    "fedavg": 0.6850,
    "fedprox": 0.6850,
    "scaffold": 0.6840,
    "fedadam": 0.7255,
    "fedyogi": 0.7314,
    "fedadagrad": 0.7314,
}  # mean of 4 hospitals, seeds 42 to 46; released by FLamby (owkin, MIT)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the benchmarks, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench.json")
    parser.add_argument("--seeds", type=int, default=20, help="seeds for the hospitals' scores")
    parser.add_argument("--turns", type=int, default=3, help="how often each engine takes its turn")
    parser.add_argument("--no-speed", action="store_true", help="leave out the engines (Ray)")
    chosen = parser.parse_args(arguments)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "hospitals": hospitals(chosen.seeds, sys.stderr),
        "flamby": flamby(sys.stderr),
        "engines": None if chosen.no_speed else engines(chosen.turns, sys.stderr),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _show(result)
    sys.stdout.write(f"written: {chosen.out}\n")


def hospitals(seeds: int, progress: TextIO) -> dict[str, Any]:
    """Scores the main job over seeds: mean of the four hospitals, without privacy and at two epsilons."""
    job = resolve(Options(privacy="none"))
    data = load_member_data(job)
    reference = measure(job, data, federate(job, data))

    def over_seeds(of: Job, what: str) -> dict[str, float]:
        found = []
        for seed in range(seeds):
            model = federate(replace(of, seed=seed), data)
            found.append(mean(model.score(site, data[site].test) for site in of.sites))
            print(f"\rhospitals, {what}: {seed + 1} of {seeds} seeds", end="", file=progress, flush=True)
        print(file=progress)
        return {"mean": statistics.fmean(found), "sd": statistics.stdev(found) if seeds > 1 else 0.0}

    return {
        "seeds": seeds,
        "delta": str(job.delta),
        "home": mean(reference.home.values()),
        "elsewhere": mean(reference.elsewhere.values()),
        "pooled": mean(reference.pooled.values()),
        "constant": reference.constant,
        "majority": reference.majority,
        "together": over_seeds(job, "no privacy"),
        **{
            f"epsilon_{epsilon}": over_seeds(
                replace(job, privacy=("record",), epsilon=Decimal(epsilon)), f"epsilon {epsilon}"
            )
            for epsilon in ("1", "0.1")
        },
    }


def flamby(progress: TextIO) -> dict[str, dict[str, float]]:
    """Scores FLamby's protocol beside FLamby's released figures, mean of four hospitals over seeds 42 to 46."""
    found: dict[str, dict[str, float]] = {}
    for strategy, released in _FLAMBY.items():
        means = []
        for seed in range(42, 47):
            job = resolve(Options(scenario="hospitals-flamby", strategy=strategy, seed=seed, privacy="none"))
            data = load_member_data(job)
            model = federate(job, data)
            means.append(mean(model.score(site, data[site].test) for site in job.sites))
        found[strategy] = {"released": released, "found": statistics.fmean(means)}
        print(f"flamby, {strategy}: {found[strategy]['found']:.4f}", file=progress, flush=True)
    return found


def engines(turns: int, progress: TextIO) -> dict[str, Any]:
    """Times rounds in process and on Ray, in turns; round 1 is left out, since it starts Ray's workers."""
    options = Options(privacy="none", rounds=31)
    job = resolve(options)
    seconds: dict[str, list[float]] = {"local": [], "ray": []}
    for turn in range(turns):
        for engine, start in (("local", run_local), ("ray", lambda prepare: run_ray(prepare, job))):
            seconds[engine] += _round_times(start, job, options, engine)
            print(f"engines: turn {turn + 1} of {turns}, {engine} done", file=progress, flush=True)
    medians = {engine: statistics.median(times) for engine, times in seconds.items()}
    return {
        "job": "hospitals, 4 sites, 14 parameters",
        "turns": turns,
        "rounds_per_second": {engine: 1 / median for engine, median in medians.items()},
        "ratio_local_to_ray": medians["ray"] / medians["local"],
    }


def _round_times(start: Callable[[Any], Any], job: Job, options: Options, engine: str) -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        path = Path(home) / f"run-{time.monotonic_ns()}"

        def prepare(run_id: int) -> Experiment:
            quiet = PlainObserver((Path(home) / "progress.txt").open("w", encoding="utf-8"))
            return Experiment.prepare(job, options, path, engine=engine, run_id=run_id, observer=quiet)

        start(prepare)
        lines = (path / METRICS_FILE).read_text(encoding="utf-8").splitlines()
        return [float(json.loads(line)["seconds"]) for line in lines[1:]]


def _show(result: dict[str, Any]) -> None:
    table = Table("what", "found", "beside it", title="collegium bench", title_justify="left")
    hospitals_found = result["hospitals"]
    for name in ("together", "epsilon_1", "epsilon_0.1"):
        found = hospitals_found[name]
        table.add_row(f"hospitals, {name}", f"{found['mean']:.4f}", f"sd {found['sd']:.4f}")
    for name in ("home", "elsewhere", "pooled", "constant", "majority"):
        table.add_row(f"hospitals, {name}", f"{hospitals_found[name]:.4f}", "")
    for strategy, found in result["flamby"].items():
        table.add_row(f"flamby, {strategy}", f"{found['found']:.4f}", f"released {found['released']:.4f}")
    if result["engines"] is not None:
        rates = result["engines"]["rounds_per_second"]
        ratio = result["engines"]["ratio_local_to_ray"]
        table.add_row(
            "rounds a second, in process", f"{rates['local']:.0f}", f"Ray {rates['ray']:.1f}; ratio {ratio:.0f}"
        )
    Console().print(table)


if __name__ == "__main__":
    main()
