"""What a joint answer takes: agents as processes of their own, mutual TLS on loopback, everything durable as at a site.

One batch after another over sessions that stay open, asked by one of the agents. Beside it: the own model over the same
channel.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from clients.joint.client import Client
from clients.joint.terms import Queries
from privacy.errors import TransportError
from simulations.bench.real_parties import PURPOSE, Parties
from simulations.bench.real_sides import Processes, ended_by_signals, free_port

SCHEMA = "collegium/bench-joint/v1"
BAR_MS = 150.0
"""Median of a batch: 4 agents, 100 queries of 10 classes."""
_INPUTS = 16
_CLASSES = 10
_ROWS = 200
_START = 60.0  # seconds
_STUDY = """
name = "bench-joint"
title = "Ten classes"
sites = {sites}
features = [{{ name = "x_{{}}", count = 16, kind = "continuous", range = [-1, 1] }}]
target = {{ name = "label", classes = 10 }}

[model]
kind = "mlp"
hidden = [64]
init = "torch"

[training]
rounds = 3
local_steps = 10
learning_rate = 0.1
clip = 1.0
"""
_POLICY = """
@id("answers")
permit (principal, action == Action::"ask", resource) when { resource.purposes.contains(context.purpose) };
"""


@dataclass(frozen=True)
class Row:
    """One way to be answered; milliseconds of a batch."""

    way: str
    agents: int
    queries: int
    classes: int
    batches: int
    median: float
    low: float
    high: float


def parties(path: Path, n_agents: int, noise: dict[str, str] | None = None) -> Parties:
    """Makes the federation, with made-up rows."""
    sites = [f"agent-{number}" for number in range(n_agents)]
    (path / "data").mkdir()
    for number, site in enumerate(sites):
        _write_rows(path / "data" / f"{site}.csv", number)
    terms = {
        "agents": sites,
        "weights": dict.fromkeys(sites, 1),
        "modes": ["ensemble", "local"],
        "purposes": [PURPOSE],
        "most_queries": 1000,
        "noise": noise,
    }
    return Parties.joined(
        path,
        _STUDY.format(sites=json.dumps(sites)),
        {"test": 0.34, "seed": 43},
        port=free_port(),
        terms={"inference": terms},
        policy=_POLICY,
        channel={site: free_port() for site in sites},
    )


def _write_rows(path: Path, number: int) -> None:
    drawn = np.random.default_rng(number)
    x = drawn.uniform(-1, 1, (_ROWS, _INPUTS)).round(3)
    labels = (np.arange(_ROWS) + number) % _CLASSES
    lines = [",".join([*(f"x_{place}" for place in range(_INPUTS)), "label"])]
    lines += [",".join(map(str, [*row, label])) for row, label in zip(x.tolist(), labels.tolist(), strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measured(path: Path, *, n_agents: int, n_queries: int, batches: int) -> list[Row]:
    """Starts the agents, asks, and stops them. Raises: FederationError: Something of it failed."""
    made = parties(path, n_agents)
    x = np.random.default_rng(7).uniform(-1, 1, (n_queries, _INPUTS)).astype(np.float32)
    with Processes(path) as processes:
        for site in made.sites:
            processes.start(site, *_COLLEGIUM, "serve", str(made.path / site))
        for site in made.sites:
            _wait_for(processes, site)
        with Client(made.folder(made.sites[0]), now=lambda: datetime.now(UTC)) as client:
            return [
                _row("local", 1, x, batches, lambda: client.predict(x, purpose=PURPOSE).mode),
                _row(
                    "ensemble", n_agents, x, batches, lambda: client.predict(x, mode="ensemble", purpose=PURPOSE).mode
                ),
            ]


_COLLEGIUM = (sys.executable, "-c", "from privacy.command import main; main()")


def _wait_for(processes: Processes, site: str) -> None:
    until = time.monotonic() + _START
    while "listens on" not in processes.last_line(site):
        processes.check()
        if time.monotonic() > until:
            raise TransportError(f"{site} does not listen: {processes.last_line(site)}", retryable=False)
        time.sleep(0.05)


def _row(way: str, agents: int, x: Queries, batches: int, ask: Callable[[], str]) -> Row:
    """Asks once to open the sessions, then so many times under the clock."""
    took = []
    for _ in range(batches + 1):
        start = time.perf_counter()
        answered = ask()
        took.append(1000 * (time.perf_counter() - start))
        if answered != way:
            raise TransportError(f"asked for {way}, answered by {answered}", retryable=False)
    low, _, high = statistics.quantiles(took[1:], n=4)
    return Row(way, agents, len(x), _CLASSES, batches, statistics.median(took[1:]), low, high)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a line a way, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-joint.json")
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--batches", type=int, default=50)
    chosen = parser.parse_args(arguments)
    with ended_by_signals(), tempfile.TemporaryDirectory() as home:
        path = Path(home) / "federation"
        path.mkdir(mode=0o700)
        rows = measured(path, n_agents=chosen.agents, n_queries=chosen.queries, batches=chosen.batches)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": {"cpus": os.cpu_count(), "load": list(os.getloadavg()), "python": platform.python_version()},
        "bar_ms": BAR_MS,
        "rows": [asdict(row) for row in rows],
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in rows:
        asked = f"{row.way}: {row.agents} agents, {row.queries} queries of {row.classes} classes"
        spread = f"({row.low:.1f} to {row.high:.1f}) of {row.batches} batches"
        sys.stdout.write(f"{asked}: median {row.median:.1f} ms {spread}\n")
    sys.stdout.write(f"written: {chosen.out}\n")


if __name__ == "__main__":
    main()
