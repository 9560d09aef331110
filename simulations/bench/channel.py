"""``python -m simulations.bench.channel``: the channel between agents beside what else could carry the same bytes.

Everything on loopback between two processes, in turns within one run, torch at one thread; of each comparison the
median over the turns of that turn's own ratio or difference, since load comes and goes between them:

* what the channel adds to a bare gRPC echo of the same bytes over mutual TLS: to a round trip of one message, and to
  throughput with eight under way. No model: encode, send, check, decode, and the same back. Compute is told apart.
* a round trip beside a blocking mutual-TLS socket's, and beside torch RPC's in the clear; and the bare echo's beside
  the socket's, which is what nothing over gRPC can better;
* steps of a split MLP beside the same steps over gloo, in the clear;
* the same beside one Flower message a batch: an echo of the same bytes, to which the step's compute is added.

Nothing here passes or fails, and milliseconds say something about the machine only.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.console import Console
from rich.table import Table

from privacy.errors import FederationError, LocalProtocolError
from simulations.bench.channel_peers import WINDOW, Array, Line, one_thread
from simulations.bench.channel_sides import Ends, flower_messages
from simulations.bench.channel_split import ACTIVATIONS, Back, Exchange, Front
from simulations.bench.real_parties import Parties
from simulations.bench.real_sides import ended_by_signals, free_port

SCHEMA = "collegium/bench-channel/v1"
SMALL, LARGE = 100_000, 1_000_000  # bytes
OURS, ECHO, SOCKET, RPC = "channel", "gRPC echo", "TLS socket", "torch RPC"
BURST = 40
_BLOCK = 10
"""Round trips, or steps, before the next one's turn."""

Seconds = dict[str, list[float]]
"""Turn by turn, of each line."""
_Thing = TypeVar("_Thing")


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes:
      turns: Of everything but Flower's messages.
      blocks: Of ten round trips in a turn, for each line and size; and of ten steps of the split model.
      bursts: Of ``BURST`` messages in a turn, eight of them under way at once.
      messages: Of Flower, each kind; 0: left out.
    """

    turns: int
    blocks: int
    bursts: int
    messages: int


FULL = Sizes(turns=5, blocks=12, bursts=5, messages=5)
QUICK = Sizes(turns=1, blocks=1, bursts=1, messages=0)


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
      unit: ``ms``: ours less the other's; ``x``: a ratio.
      turns: The figure, turn by turn.
      ours, other: Milliseconds a message or a step, turn by turn; ``ours`` is the bare echo's where ``what`` says so.
      most, least: Bars, or ``None``.
    """

    what: str
    against: str
    bytes: int
    unit: str
    turns: list[float]
    ours: list[float]
    other: list[float]
    most: float | None = None
    least: float | None = None

    @property
    def value(self) -> float:
        """Median over the turns."""
        return statistics.median(self.turns)

    @property
    def holds(self) -> bool | None:
        """Whether the bar is met; ``None`` where there is none."""
        if self.most is None and self.least is None:
            return None
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


def added(seconds: Seconds, size: int, most: float | None) -> Row:
    """Returns what a round trip of ours takes longer than the bare echo's, in ms."""
    ours, other = _ms(seconds[OURS]), _ms(seconds[ECHO])
    turns = [mine - theirs for mine, theirs in zip(ours, other, strict=True)]
    return Row("added to a round trip", ECHO, size, "ms", turns, ours, other, most=most)


def times(what: str, against: str, size: int, seconds: Seconds, most: float | None = None, *, of: str = OURS) -> Row:
    """Returns how many times as long ours takes, or the line called ``of``."""
    ours, other = _ms(seconds[of]), _ms(seconds[against])
    turns = [mine / theirs for mine, theirs in zip(ours, other, strict=True)]
    return Row(what, against, size, "x", turns, ours, other, most=most)


def rate(what: str, against: str, size: int, seconds: Seconds, least: float | None = None) -> Row:
    """Returns how many times as much ours gets done in the same time."""
    row = times(what, against, size, seconds)
    return Row(what, against, size, "x", [1 / each for each in row.turns], row.ours, row.other, least=least)


def _ms(seconds: Sequence[float]) -> list[float]:
    return [1e3 * each for each in seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints a table, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-channel.json")
    parser.add_argument("--json", action="store_true", help="print what is written instead of the table")
    parser.add_argument("--quick", action="store_true", help="one short turn, no Flower: shows that it runs")
    parser.add_argument("--no-flower", action="store_true", help="leave out the messages of Flower, which take minutes")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else FULL
    one_thread()
    load = [os.getloadavg()[0]]
    with ended_by_signals(), tempfile.TemporaryDirectory(prefix="collegium-bench-") as home:
        try:
            parties = Parties.made(Path(home), parameters=1000, port=free_port())
            rows, compute = measured(parties, sizes)
            if sizes.messages and not chosen.no_flower:
                rows += beside_flower(parties, rows[-1], compute, sizes)
        except FederationError as error:
            sys.stderr.write("\n".join(["left out:", *error.lines()]) + "\n")
            return
    result = document(rows, compute, [*load, os.getloadavg()[0]], quick=chosen.quick)
    text = json.dumps(result, indent=2) + "\n"
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(text, encoding="utf-8")
    if chosen.json:
        sys.stdout.write(text)
        return
    show(rows, compute, quick=chosen.quick)
    sys.stdout.write(f"written: {chosen.out}\n")


def document(rows: Sequence[Row], compute: float, load: Sequence[float], *, quick: bool) -> dict[str, Any]:
    """Returns the JSON file's content; quick sizes are held against no bar."""
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "load": list(load)}
    machine |= {name: version(name) for name in ("flwr", "grpcio", "numpy", "protobuf", "torch")}
    told = [{**asdict(row), "value": row.value, "holds": None if quick else row.holds} for row in rows]
    return {"schema": SCHEMA, "quick": quick, "machine": machine, "compute_ms": compute, "rows": told}


def measured(parties: Parties, sizes: Sizes) -> tuple[list[Row], float]:
    """Returns all rows but Flower's, the split model's last, and the milliseconds of a step's compute."""
    trips: dict[int, Seconds] = {SMALL: {}, LARGE: {}}
    streams: dict[int, Seconds] = {SMALL: {}, LARGE: {}}
    steps: Seconds = {}
    with Ends(parties) as ends:
        lines = {OURS: ends.channel(), ECHO: ends.echo(), SOCKET: ends.socket(), RPC: ends.rpc()}
        alone = (Front(), Back().answer)
        fronts = {OURS: (Front(), ends.split()), "gloo": (Front(), ends.gloo()), "alone": alone}
        for turn in range(sizes.turns + 1):  # the first one warms up and does not count
            for size in (SMALL, LARGE):
                _add(trips[size], turn, trip_seconds(turned(lines, turn), size, sizes.blocks))
                both = {name: lines[name] for name in (OURS, ECHO)}
                _add(streams[size], turn, stream_seconds(turned(both, turn), size, sizes.bursts))
            _add(steps, turn, step_seconds(turned(fronts, turn), sizes.blocks))
            sys.stderr.write(f"turn {turn} of {sizes.turns}\n")
    split_row = rate("steps of a split MLP", "gloo", ACTIVATIONS, steps, 0.8)
    return [*_rows(trips, streams), split_row], statistics.median(_ms(steps["alone"]))


def _rows(trips: Mapping[int, Seconds], streams: Mapping[int, Seconds]) -> Iterator[Row]:
    yield added(trips[SMALL], SMALL, 0.5)
    yield added(trips[LARGE], LARGE, None)
    for size, least in ((SMALL, None), (LARGE, 0.6)):
        yield rate(f"throughput, {WINDOW} under way", ECHO, size, streams[size], least)
    for size in (SMALL, LARGE):
        for against, most in ((SOCKET, 2.0), (RPC, 3.0), (ECHO, None)):
            yield times("round trip", against, size, trips[size], most)
        yield times("the bare echo's round trip", SOCKET, size, trips[size], of=ECHO)


def _add(to: Seconds, turn: int, found: Mapping[str, float]) -> None:
    if turn:
        for name, seconds in found.items():
            to.setdefault(name, []).append(seconds)


def turned(things: Mapping[str, _Thing], turn: int) -> dict[str, _Thing]:
    """Returns the same, another one first each turn."""
    names = [*things]
    first = turn % len(names)
    return {name: things[name] for name in names[first:] + names[:first]}


def trip_seconds(lines: Mapping[str, Line], size: int, blocks: int) -> dict[str, float]:
    """Returns the median seconds of a round trip over each line, which take turns by blocks."""
    tensor, taken = _tensor(size), {name: list[float]() for name in lines}
    for _ in range(blocks):
        for name, line in lines.items():
            for _ in range(_BLOCK):
                began = time.perf_counter()
                line.send(tensor)
                came = line.receive()
                taken[name].append(time.perf_counter() - began)
                _check(came, tensor, name)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def stream_seconds(lines: Mapping[str, Line], size: int, bursts: int) -> dict[str, float]:
    """Returns the seconds of a message over each line with a window of them under way, median of bursts in turns."""
    tensor, taken = _tensor(size), {name: list[float]() for name in lines}
    for _ in range(bursts):
        for name, line in lines.items():
            began = time.perf_counter()
            for number in range(BURST + WINDOW):
                if number >= WINDOW:
                    came = line.receive()
                if number < BURST:
                    line.send(tensor)
            taken[name].append((time.perf_counter() - began) / BURST)
            _check(came, tensor, name)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def step_seconds(fronts: Mapping[str, tuple[Front, Exchange]], blocks: int) -> dict[str, float]:
    """Returns the median seconds of a step of each front, which take turns by blocks."""
    taken = {name: list[float]() for name in fronts}
    for _ in range(blocks):
        for name, (front, exchange) in fronts.items():
            for _ in range(_BLOCK):
                began = time.perf_counter()
                front.step(exchange)
                taken[name].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _tensor(size: int) -> Array:
    return np.random.default_rng(size).random(size // 4, np.float32)


def _check(came: Array, sent: Array, name: str) -> None:
    if not np.array_equal(came, sent):
        raise LocalProtocolError(f"{name} did not send back what it was sent")


def beside_flower(parties: Parties, split: Row, compute: float, sizes: Sizes) -> list[Row]:
    """Returns how many steps ours takes while Flower takes one: an echo of the same bytes, and the step's compute."""
    rows = []
    for name, seconds in flower_messages(parties, ACTIVATIONS, sizes.messages).items():
        other = [1e3 * each + compute for each in seconds]
        ours = [statistics.median(split.ours)] * len(other)
        turns = [theirs / mine for mine, theirs in zip(ours, other, strict=True)]
        rows.append(Row("steps of a split MLP", name, ACTIVATIONS, "x", turns, ours, other))
    return rows


def show(rows: Sequence[Row], compute: float, *, quick: bool) -> None:
    """Prints the table."""
    table = Table(
        "what", "beside", "kB", "figure", "turns", "bar", "ms here", title="the channel", title_justify="left"
    )
    for row in rows:
        bar = "-" if row.holds is None else f"<= {row.most:g}" if row.most is not None else f">= {row.least:g}"
        holds = "" if quick or row.holds is None else ", holds" if row.holds else ", missed"
        table.add_row(
            row.what,
            row.against,
            f"{row.bytes / 1000:g}",
            f"{row.value:.2f} {row.unit}",
            f"{min(row.turns):.2f} - {max(row.turns):.2f}",
            bar + holds,
            f"{statistics.median(row.ours):.2f} : {statistics.median(row.other):.2f}",
        )
    Console(width=110).print(table)
    sys.stdout.write(f"compute of a split step, both pieces in one process: {compute:.2f} ms\n")


if __name__ == "__main__":
    main()
