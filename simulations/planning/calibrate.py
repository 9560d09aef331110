"""What the devices of a plan really take: each piece timed where it would run, each line fitted from messages.

`collegium stage serve --measure` answers at the others; the first device is this machine. A line is latency plus bytes
over rate (Hockney, "The communication challenge for MPP", Parallel Computing 1994), fitted to messages of the channel
as chains send them, so that encoding, encryption and copying are in both. What lies between two of the others is not
measured from here: a value from one to the other is counted as if it passed through here.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch

from clients.chain.installed import Installed
from clients.chain.measure import ECHO, KIND, Probe, Times, measure, read_times
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.message import Message
from clients.channel.session import Session
from privacy.errors import ConfigError, RemoteProtocolError
from privacy.store.site_folder import SiteFolder
from simulations.scenario import load
from strategies.cuts import Piece
from strategies.devices import Device, Devices
from strategies.models import build
from strategies.planner import Workload

SIZES = (2**10, 2**14, 2**17, 2**20, 2**22)
"""Bytes of the messages that a line is fitted to; a plan's own, up to a message's bound, lie between."""
REPEATS = 9
_ECHOES = 7

Dial = Callable[[Device], Session]
"""Opens a session of kind ``measure`` with a device's ``stage serve``, or raises FederationError."""


@dataclass(frozen=True)
class Line:
    """A line between this machine and another.

    Attributes:
      latency: Seconds of a message without content, one way.
      rate: Bytes a second beyond that.
      points: Bytes of each size, and the median seconds there and back.
    """

    latency: float
    rate: float
    points: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Measured:
    """One device; seconds of a micro-batch, a number for each segment of the model.

    Attributes:
      line: ``None``: this machine itself.
    """

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    optimizer: tuple[float, ...]
    line: Line | None

    @property
    def seconds(self) -> tuple[float, ...]:
        """All three together."""
        return tuple(map(sum, zip(self.forward, self.backward, self.optimizer, strict=True)))


@dataclass(frozen=True)
class Calibration:
    """What was measured, by name of the device."""

    measured: Mapping[str, Measured]

    def devices(self, given: Devices) -> Devices:
        """Returns the devices with their measured lines; this machine is the middle of the network."""
        return replace(given, devices=tuple(_on_line(each, self.measured[each.name].line) for each in given.devices))

    def work(self, given: Workload) -> Workload:
        """Returns the work with the measured seconds of every segment."""
        return replace(given, timed={name: each.seconds for name, each in self.measured.items()})


def installed(model: str, blocks: Sequence[str]) -> Installed:
    """Returns what `collegium plan` was asked about, with values. Raises: ConfigError: There is no such model."""
    if ":" in model and not model.endswith(".toml"):
        return Installed.of_factory(model, blocks)
    task = load(model).task
    example = torch.zeros(2, task.n_inputs)
    return Installed(f"the scenario {model}", lambda seed: (build(task.model, task.n_inputs, seed), (example,)))


@contextmanager
def over_channel(folder: SiteFolder, devices: Devices) -> Iterator[Dial]:
    """Lends the channel of a site.

    Raises: ConfigError: The first device is another organisation's: its machine must be this one.
    """
    home, own = devices.devices[0], Identity.of_folder(folder, lambda: datetime.now(UTC))
    if home.organisation != own.site:
        raise ConfigError(
            f"{home.name}, the first device, is {home.organisation}'s, and {folder.path} is {own.site}'s",
            hint="Organisations are site ids here; the first device is the machine that this runs on.",
        )
    with closing(Dialler(own)) as dialler:
        yield lambda device: dialler.open(device.address, device.organisation, kind=KIND)


def calibrate(
    installed: Installed, pieces: Sequence[Piece], devices: Devices, work: Workload, dial: Dial, *, records: int,
    told: Callable[[str], None] = lambda _: None,
) -> Calibration:  # fmt: skip
    """Times every segment on every device, one after another, and the lines to them.

    Args:
      installed: The model as this machine has it; the others must have the same.
      pieces: The segments of the planner's profile, in order.
      devices: The first is this machine.
      work: What they would do.
      dial: Called once for each of the others.
      records: In a micro-batch.
      told: Hears which device is measured.

    Raises: FederationError: A device has no address, is not there, refuses, or has another model.
    """
    probes = [Probe(piece, records, REPEATS, work.optimizer, work.train) for piece in pieces]
    home, *others = devices.devices
    for device in others:
        if not device.address:
            raise ConfigError(
                f"the devices file does not say where {device.name} listens",
                hint='Add address = "host:port"; every device but the first is measured over the channel.',
            )
    told(f"measuring {home.name}, this machine")
    found = {home.name: _measured([measure(installed, probe) for probe in probes], None)}
    for device in others:
        told(f"measuring {device.name}")
        with closing(dial(device)) as session:
            line = fit([(size, _echoed(session, size)) for size in SIZES])
            found[device.name] = _measured([_asked(session, probe) for probe in probes], line)
    return Calibration(found)


def fit(points: Sequence[tuple[int, float]]) -> Line:
    """Fits latency and rate to seconds there and back, each size's error counted relative to its time.

    Raises: ConfigError: Longer messages took no longer: nothing can be said of the line.
    """
    sizes, seconds = np.array(points, dtype=np.float64).T
    slope, start = np.polyfit(sizes, seconds, 1, w=1 / seconds)
    if start < 0:  # a line through the origin, by the same weights
        start, slope = 0.0, float(np.sum(sizes / seconds) / np.sum((sizes / seconds) ** 2))
    if slope <= 0:
        raise ConfigError("the line cannot be measured: long messages took no longer than short ones")
    return Line(float(start) / 2, 2 / float(slope), tuple(points))


def to_json(found: Calibration) -> dict[str, Any]:
    """Returns what ``plan.json`` says of it."""
    return {name: {**_columns(each), "line": _line_json(each.line)} for name, each in found.measured.items()}


def words(found: Calibration, format_span: Callable[[float], str]) -> list[str]:
    """Returns a line of the sheet for each device."""
    told = []
    for name, each in found.measured.items():
        line = each.line
        way = "" if line is None else f"; {format_span(line.latency)} away at {line.rate / 1e6:.3g} MB/s"
        told.append(f"Measured: {name} takes {format_span(sum(each.seconds))} for the whole model{way}.")
    return told


def _columns(each: Measured) -> dict[str, list[float]]:
    return {"forward": [*each.forward], "backward": [*each.backward], "optimizer": [*each.optimizer]}


def _line_json(line: Line | None) -> dict[str, Any] | None:
    if line is None:
        return None
    return {"latency": line.latency, "rate": line.rate, "points": [[*point] for point in line.points]}


def _on_line(device: Device, line: Line | None) -> Device:
    if line is None:
        return replace(device, bandwidth=math.inf, round_trip=0.0)
    return replace(device, bandwidth=line.rate, round_trip=2 * line.latency)


def _measured(times: Sequence[Times], line: Line | None) -> Measured:
    def column(name: str) -> tuple[float, ...]:
        return tuple(statistics.median(getattr(each, name) or [0.0]) for each in times)

    return Measured(column("forward"), column("backward"), column("apply"), line)


def _echoed(session: Session, size: int) -> float:
    """Returns the median seconds of a message there and back."""
    sent = Message(ECHO, tensors={"x": np.zeros(size // 4, np.float32)})
    seconds = []
    for number in range(_ECHOES + 1):
        started = time.perf_counter()
        session.send(sent)
        back = session.receive()
        if "x" not in back.tensors or back.tensors["x"].shape != sent.tensors["x"].shape:
            raise RemoteProtocolError(f"{session.peer} sent something else back", site_id=session.peer)
        if number:  # the first one warms up
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _asked(session: Session, probe: Probe) -> Times:
    session.send(probe.message())
    found = read_times(session.receive())
    if probe.train and not (len(found.forward) == len(found.backward) == len(found.apply)):
        raise RemoteProtocolError(f"{session.peer} timed something else", site_id=session.peer)
    return found
