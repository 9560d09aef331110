"""``python -m simulations.bench.noise``: what a million draws of noise cost, exact and through floating point.

CPU time of this process, medians, all jobs in turns; tables are warm, and what making one costs stands beside it.
Nothing here passes or fails.
"""

import argparse
import json
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privacy.dp.exact import cumulative
from privacy.dp.mechanism import GRID
from privacy.dp.noise import rounded_gaussian, rounded_gaussian_exact, skellam_exact

SCHEMA = "collegium/bench-noise/v1"
BAR_S = 1.0
GAUSSIAN = {"0.5": 0.5, "50": 50.0, "2^12": 2.0**12, "10 * 2^20": 10.0 * GRID, "2^30": 2.0**30}
SKELLAM = {"2": 2, "50": 50, "2^12": 2**12}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints one JSON row a sampler, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-noise.json")
    parser.add_argument("--quick", action="store_true", help="few draws: shows that it runs, says nothing about speed")
    chosen = parser.parse_args(arguments)
    load = [os.getloadavg()]
    rows = measure(*((1000, 1) if chosen.quick else (10**6, 9)))
    load.append(os.getloadavg())
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "load": load}
    machine |= {name: version(name) for name in ("cryptography", "mpmath", "numpy", "randomgen", "scipy")}
    result = {"schema": SCHEMA, "quick": chosen.quick, "machine": machine, "rows": rows}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.write(f"written: {chosen.out}\n")


def measure(size: int, turns: int) -> list[Mapping[str, Any]]:
    """Returns a row for each sampler; a turn runs every one once, in this order, after one that does not count."""
    jobs = _jobs(size)
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(turns + 1):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            if turn:
                times[name].append(time.process_time() - start)
    return [
        {
            "what": name,
            "draws": size,
            "cpu_s": statistics.median(each),
            "turns_from_to": [min(each), max(each)],
            "bar_s": BAR_S if name.startswith("exact") else None,
        }
        for name, each in times.items()
    ]


def _jobs(size: int) -> dict[str, Callable[[], object]]:
    jobs: dict[str, Callable[[], object]] = {}
    for name, sigma in GAUSSIAN.items():
        jobs[f"exact rounded Gaussian, sigma {name}"] = _job(rounded_gaussian_exact, sigma, size, secrets.token_bytes)
    for name, deviation in SKELLAM.items():
        jobs[f"exact Skellam, deviation {name}"] = _job(skellam_exact, deviation**2, size, secrets.token_bytes)
        jobs[f"making the Skellam table, deviation {name}"] = _job(cumulative, Fraction(deviation**2), 63)
    jobs["float64 rounded Gaussian, sigma 10 * 2^20"] = _job(rounded_gaussian, 10.0 * GRID, size, secrets.token_bytes)
    jobs["keystream alone, 8 bytes a draw"] = lambda: (
        Cipher(algorithms.AES(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor().update(bytes(8 * size))
    )
    return jobs


def _job(function: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: function(*arguments)


if __name__ == "__main__":
    main()
