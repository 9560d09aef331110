"""``python -m simulations.bench.real``: our path between real sites beside stock Flower's, both over TLS on loopback.

Two things, each a ratio of medians of one run on one machine, both sides up at once and taking turns:

* one phase, like for like: every site is sent 400 kB of random bytes and sends them back, through the same ClientApp;
* one whole round of the banks' study with 1e5 parameters: ours under secure aggregation (FSA1), in four phases, with
  gate, ledger and log; stock Flower's plain FedAvg in its one, updates in the clear, without evaluation.

Stock Flower is left as it is: it looks for work and for answers every 3 s and starts a process for every message. Our
agents poll less often the longer nothing happens; the first phase of a turn, which wakes them as a run's roll call
does, is told apart. Nothing here passes or fails, and seconds say something about the machine only.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from privacy.errors import FederationError
from simulations.bench.real_parties import Parties, banks_of
from simulations.bench.real_sides import Ours, Processes, Stock, ended_by_signals, free_port, median

SCHEMA = "collegium/bench-real/v1"
PAYLOAD = 400_000  # bytes
PARAMETERS = 100_000
"""Of the banks' model, as near as one hidden layer gets."""

PHASE_BAR, ROUND_BAR = 5.0, 2.5
BARRED = 5
"""Sites for which the phase has a bar; the other numbers show how it grows."""

Turns = list[list[float]]


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes:
      sites: Numbers of sites for phases, growing.
      study_sites: Number of sites of the banks' rounds, at most the largest of ``sites``.
      phases: Turns of one phase each.
      study_turns: Turns of ``rounds`` rounds each.
    """

    sites: tuple[int, ...]
    study_sites: int
    phases: int
    study_turns: int
    rounds: int


FULL = Sizes(sites=(3, 5, 10), study_sites=5, phases=5, study_turns=2, rounds=2)
QUICK = Sizes(sites=(3,), study_sites=3, phases=1, study_turns=1, rounds=1)


@dataclass(frozen=True)
class Row:
    """One comparison: how many times as long stock Flower takes.

    Attributes:
      what: In words.
      bar: Least ratio wanted, or ``None``.
      ours, stock: Seconds, turn by turn.
      waking: Seconds of our first phases, after a pause; not in ``ours``.
      load: Load averages of the last minute, before and after.
    """

    what: str
    sites: int
    bar: float | None
    ours: Turns
    stock: Turns
    waking: list[float] = field(default_factory=list)
    load: tuple[float, ...] = ()

    @property
    def ratio(self) -> float:
        """Of the medians over all turns."""
        return median(self.stock) / median(self.ours)

    @property
    def by_turn(self) -> list[float]:
        """Of the medians of each turn."""
        return [median([theirs]) / median([mine]) for mine, theirs in zip(self.ours, self.stock, strict=True)]

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; ``None`` where there is none."""
        return None if self.bar is None else self.ratio >= self.bar

    def told(self, *, quick: bool) -> dict[str, Any]:
        """Returns the row as the JSON file has it; quick sizes are held against no bar."""
        found = {"ratio": self.ratio, "by_turn": self.by_turn, "holds": None if quick else self.holds}
        return {**asdict(self), "medians": {"ours": median(self.ours), "stock": median(self.stock)}, **found}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-real.json")
    parser.add_argument("--quick", action="store_true", help="three sites, one phase, one round: shows that it runs")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else FULL
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="collegium-bench-") as home:
        try:
            rows = list(_measured(Path(home), sizes))
        except FederationError as error:
            sys.stderr.write("\n".join(["left out:", *error.lines()]) + "\n")
            return
    result = document(rows, quick=chosen.quick)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    show(rows, quick=chosen.quick)
    sys.stdout.write(f"written: {chosen.out}\n")


def document(rows: Sequence[Row], *, quick: bool) -> dict[str, Any]:
    """Returns the JSON file's content."""
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "flwr": version("flwr")}
    told = [row.told(quick=quick) for row in rows]
    return {
        "schema": SCHEMA,
        "quick": quick,
        "machine": machine,
        "sizes": {"payload_bytes": PAYLOAD, "parameters": PARAMETERS},
        "rows": told,
    }


def _measured(home: Path, sizes: Sizes) -> Iterator[Row]:
    """Starts both sides, lets them grow from measurement to measurement, and ends them."""
    parties = Parties.made(home, parameters=PARAMETERS, port=free_port())
    with Processes(home) as processes:
        ours, stock = Ours(parties, processes), Stock(parties, processes, home / "flwr")
        ours.start()
        stock.start()
        with stock.running() as orders:
            for count in sizes.sites:
                new = banks_of(parties.sites, count)[len(ours.sites) :]
                _say(f"{count} sites: starting {len(new)} more on both sides")
                ours.add(*new)
                stock.add(*new)
                orders.give(nodes=count)
                yield _phases(ours, lambda: orders.give(echo=PAYLOAD), count, sizes.phases)
            sites = banks_of(parties.sites, sizes.study_sites)
            _say(f"a whole round: {len(sites)} banks, {parties.n_parameters} parameters")
            stock.keep(*sites)
            ours.start_sites(*sites)
            orders.give(nodes=len(sites))
            yield _rounds(ours, lambda: orders.give(**_training(parties, sizes.rounds)), sizes)


def _phases(ours: Ours, stock: Callable[[], list[float]], count: int, turns: int) -> Row:
    waking: list[float] = []

    def our_turn() -> list[float]:
        with ours.asking() as ask:
            waking.append(ask(PAYLOAD))
            return [ask(PAYLOAD)]

    with _load() as load:
        found = _in_turns(our_turn, stock, turns)
    bar = PHASE_BAR if count == BARRED else None
    return Row("one phase", count, bar, *found, waking, tuple(load))


def _rounds(ours: Ours, stock: Callable[[], list[float]], sizes: Sizes) -> Row:
    with _load() as load:
        found = _in_turns(lambda: ours.rounds(sizes.rounds), stock, sizes.study_turns)
    return Row("one round of banks", len(ours.sites), ROUND_BAR, *found, load=tuple(load))


def _training(parties: Parties, rounds: int) -> dict[str, Any]:
    """Returns the order to train stock Flower's app as the study says."""
    task = parties.study.task
    of = task.training_for("fedavg")
    settings = {"learning-rate": of.learning_rate, "local-steps": of.local_steps, "batch": of.batch}
    return {"train": rounds, "inputs": task.n_inputs, "hidden": task.model.hidden[0], "training": settings}


def _in_turns(ours: Callable[[], list[float]], stock: Callable[[], list[float]], turns: int) -> tuple[Turns, Turns]:
    """Lets both take their turns, the other one first each time."""
    sides = (ours, stock)
    found: tuple[Turns, Turns] = ([], [])
    for turn in range(turns):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            found[side].append(sides[side]())
        _say(f"turn {turn + 1} of {turns}: ours {median([found[0][-1]]):.2f} s, stock {median([found[1][-1]]):.2f} s")
    return found


@contextmanager
def _load() -> Iterator[list[float]]:
    """Yields what will hold the load averages of the last minute, before and after the block."""
    found = [os.getloadavg()[0]]
    yield found
    found.append(os.getloadavg()[0])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def show(rows: Sequence[Row], *, quick: bool) -> None:
    """Prints the table."""
    title = "ours beside stock Flower: how many times as long stock takes"
    table = Table("what", "sites", "ratio", "turns", "bar", "seconds here", "load", title=title, title_justify="left")
    for row in rows:
        holds = "" if quick else (", holds" if row.holds else ", missed")
        table.add_row(
            row.what,
            str(row.sites),
            f"{row.ratio:.1f}",
            f"{min(row.by_turn):.1f} - {max(row.by_turn):.1f}",
            "-" if row.bar is None else f">= {row.bar:g}{holds}",
            f"{median(row.ours):.2f} : {median(row.stock):.1f}",
            " - ".join(f"{load:.1f}" for load in row.load),
        )
    Console().print(table)


if __name__ == "__main__":
    main()
