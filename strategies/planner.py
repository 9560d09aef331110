"""Who holds what: the largest part of a model that fits each device, and the best chain of stages over all of them.

A chain starts where the data are, passes down the list of devices, skips those that do not help, and may come back to
the first with its last piece (a U: labels stay home). A device works at its speed, a transfer takes the slower line
plus the way, and neither waits for the other: the cost model of PipeDream (Narayanan et al., SOSP 2019, section 3.1),
here with every stage on one device. Costs are estimates; runs of the stages are what they are checked against.
"""

import bisect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal

import numpy as np
import numpy.typing as npt

from strategies.analysis import Analysis
from strategies.cuts import Cut
from strategies.devices import Device, Devices
from strategies.release import Crossing

_Came = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]  # which device before, of (h, a); which start, of (h, b)
_OPTIMIZER_COPIES = {"sgd": 0, "momentum": 1, "adam": 2}
_WIDTHS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)

OPTIMIZERS = tuple(_OPTIMIZER_COPIES)


class Objective(StrEnum):
    """What a chain is best at: one micro-batch from start to end, or micro-batches a second."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"


@dataclass(frozen=True)
class Segment:
    """What lies between two neighbouring cuts; bytes and FLOPs as in `strategies.analysis`."""

    flops: float
    trained: float
    fixed: float
    kept: float
    live: float


@dataclass(frozen=True)
class Profile:
    """A model as a row of segments.

    Attributes:
      segments: ``n`` of them.
      crossing: Bytes at the ``n + 1`` boundaries: the inputs, each cut, the output.
      nodes: Names of the cuts, ``n - 1``.
    """

    segments: tuple[Segment, ...]
    crossing: tuple[float, ...]
    nodes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.segments) == len(self.crossing) - 1 == len(self.nodes) + 1 > 0:
            raise ValueError("a profile of n segments has n + 1 boundaries and n - 1 cuts")


@dataclass(frozen=True)
class Workload:
    """What the devices do with the model; the micro-batch is the example that was analysed.

    Attributes:
      train: Forward, backward and optimiser; otherwise forward only.
      optimizer: One of ``OPTIMIZERS``: how many numbers it keeps per weight.
      in_flight: Most micro-batches under way at once.
      timed: By name of a device, the seconds that it was measured to take for each segment at this work; devices that
        are not there work at their speed, and a backward pass takes twice the forward's.
    """

    train: bool = True
    optimizer: str = "adam"
    in_flight: int = 1
    timed: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    def elapsed(self, profile: Profile, device: Device) -> npt.NDArray[np.float64]:
        """Returns the seconds that a device computes from the inputs to each of the ``n + 1`` boundaries."""
        timed = self.timed.get(device.name)
        if timed is not None:
            return np.cumsum([0.0, *timed])
        return (3 if self.train else 1) / device.speed * np.cumsum([0.0, *(each.flops for each in profile.segments)])

    def memory(self, profile: Profile, start: int, end: int) -> float:
        """Returns the bytes of a piece at work: weights, gradients, optimiser, and activations in flight."""
        part = profile.segments[start:end]
        if not part:
            return 0.0
        fixed, trained = sum(each.fixed for each in part), sum(each.trained for each in part)
        if not self.train:
            return fixed + trained + self.in_flight * max(each.live for each in part)
        copies = 2 + _OPTIMIZER_COPIES[self.optimizer]
        return fixed + copies * trained + self.in_flight * (profile.crossing[start] + sum(each.kept for each in part))


@dataclass(frozen=True)
class Part:
    """The largest part of the model that a device can hold by itself, as a sub-model of its own.

    Attributes:
      kind: ``depth``: the front up to a cut, with an exit head counted as large as the model's own last segment;
        ``width``: a slice of every layer; ``none``: nothing fits.
      end: The cut where a front ends.
      ratio: Part of the width.
      memory: Bytes, estimated.
    """

    kind: Literal["whole", "depth", "width", "none"]
    memory: float = 0.0
    end: str = ""
    ratio: float = 1.0


@dataclass(frozen=True)
class Stage:
    """A piece at a device: segments ``start`` to ``end``; costs for one micro-batch."""

    device: Device
    start: int
    end: int
    flops: float
    seconds: float
    memory: float


@dataclass(frozen=True)
class Hop:
    """What passes from one device to the next at a boundary, and its gradient back.

    Attributes:
      released: What passes to another organisation than its owner's, and to which device; it has a release.
      busy: Seconds that the slower line is taken.
      seconds: The same with the way.
    """

    giver: Device
    taker: Device
    boundary: int
    released: tuple[tuple[Crossing, Device], ...]
    busy: float
    seconds: float


@dataclass(frozen=True)
class Chain:
    """Stages in the order in which a micro-batch passes them.

    Attributes:
      hops: From the first device to the first stage, between stages, and from the last stage to the first device (the
        answer) or to it (the labels, in training, which take no time here); none within a device.
      latency: Seconds of one micro-batch alone.
      period: Seconds from one micro-batch to the next when ``in_flight`` are under way.
    """

    stages: tuple[Stage, ...]
    hops: tuple[Hop, ...]
    latency: float
    period: float
    in_flight: int


def profile(analysis: Analysis, cuts: Sequence[Cut]) -> Profile:
    """Adds up an analysis between cuts; cuts that part a shared parameter are left out."""
    usable = [cut for cut in cuts if not cut.shared_keys]
    bounds = [0, *(cut.position + 1 for cut in usable), len(analysis.nodes)]
    segments = []
    for start, end in itertools.pairwise(bounds):
        nodes = analysis.nodes[start:end]
        segments.append(
            Segment(
                flops=sum(node.flops for node in nodes),
                trained=sum(node.trained for node in nodes),
                fixed=sum(node.fixed for node in nodes),
                kept=sum(node.kept for node in nodes),
                live=max((node.live for node in nodes), default=0),
            )
        )
    crossing = (analysis.input_bytes, *(cut.bytes for cut in usable), analysis.output_bytes)
    return Profile(tuple(segments), crossing, tuple(cut.node for cut in usable))


def alone(model: Profile, device: Device, work: Workload) -> Part:
    """Returns what a device can hold by itself: the whole model, else the deepest front, else the widest slice."""
    work, n = replace(work, in_flight=1), len(model.segments)
    whole = work.memory(model, 0, n)
    if whole <= device.memory:
        return Part("whole", whole)
    head = work.memory(model, n - 1, n)
    for end in range(n - 1, 0, -1):
        memory = work.memory(model, 0, end) + head
        if memory <= device.memory and any(each.trained for each in model.segments[:end]):
            return Part("depth", memory, end=model.nodes[end - 1])
    for ratio in _WIDTHS:
        memory = work.memory(_narrowed(model, ratio), 0, n)
        if memory <= device.memory:
            return Part("width", memory, ratio=ratio)
    return Part("none")


def plan(model: Profile, devices: Devices, work: Workload, objective: Objective) -> Chain | None:
    """Returns the best chain, or ``None`` if none fits and is allowed.

    For throughput, the period is bounded from below by the busiest device or line, and by the latency over the
    micro-batches in flight (Little's law); every number in flight up to the workload's is tried, for memory grows with
    it.
    """
    if objective is Objective.LATENCY:
        return _Search(model, devices, replace(work, in_flight=1)).within(np.inf)
    found = (_steadiest(_Search(model, devices, replace(work, in_flight=m))) for m in range(1, work.in_flight + 1))
    return min((chain for chain in found if chain is not None), key=lambda chain: chain.period, default=None)


def _narrowed(model: Profile, ratio: float) -> Profile:
    """Most weights join two layers that are both narrower; what crosses and is kept belongs to one."""
    return replace(
        model,
        segments=tuple(
            Segment(s.flops * ratio**2, s.trained * ratio**2, s.fixed * ratio, s.kept * ratio, s.live * ratio)
            for s in model.segments
        ),
    )


def _steadiest(search: "_Search") -> Chain | None:
    """Returns the chain of least period.

    Let L(T) be the least latency of chains whose every device and line is busy for at most T. The best period is the
    least max(T, L(T) / m) over all busy times T; L falls as T grows, so it lies where the two meet, or one step before.
    """
    limits = search.limits()

    def met(limit: float) -> bool:
        chain = search.within(limit)
        return chain is not None and chain.latency <= search.work.in_flight * limit

    meeting = bisect.bisect_left(limits, x=True, key=met)
    found = (search.within(limit) for limit in limits[max(meeting - 1, 0) : meeting + 1])
    return min((chain for chain in found if chain is not None), key=lambda chain: chain.period, default=None)


class _Search:
    """Chains of least latency within a limit on how long anything is busy, by dynamic programming over boundaries.

    Boundaries run from 0, the inputs, to ``n``, the output. ``h`` is where the first device's front ends (0: it holds
    none), ``a`` and ``b`` are where a piece of another device starts and ends; each array holds seconds, infinite where
    something does not fit or is not allowed.
    """

    def __init__(self, model: Profile, devices: Devices, work: Workload) -> None:
        self.work = work
        self._model, self._devices, self._n = model, devices.devices, len(model.segments)
        n, bounds = self._n, range(self._n + 1)
        memory = np.array([[work.memory(model, a, b) for b in bounds] for a in bounds])
        room = (memory <= each.memory for each in self._devices)
        forwards = ~np.tri(n + 1, dtype=bool)
        self._done = [work.elapsed(model, each) for each in self._devices]
        self._compute = [
            np.where(fits & forwards, done[None, :] - done[:, None], np.inf)
            for fits, done in zip(room, self._done, strict=True)
        ]
        self._front = np.append(0.0, self._compute[0][0, 1:n])  # of h
        self._tail = np.append(self._compute[0][:n, n], 0.0)  # of b: the first device's last piece, none from n on
        fits = memory[0, :n, None] + memory[None, :, n] <= self._devices[0].memory
        self._around = np.where(fits, self._front[:, None] + self._tail[None, :], np.inf)  # of (h, b)
        self._hops = {
            (i, j): [_hop(model, devices, work, i, j, at) for at in bounds]
            for i, j in itertools.permutations(range(len(self._devices)), 2)
            if i < j or j == 0
        }
        self._lines = {
            pair: np.array([(hop.busy, hop.seconds) if hop else (np.inf, np.inf) for hop in hops]).T
            for pair, hops in self._hops.items()
        }  # how long the line is busy and how long a value takes, of (2, boundary)

    def limits(self) -> list[float]:
        """Returns every time that something in some chain can be busy for, ascending."""
        times = [*self._compute, self._around, *(busy for busy, _ in self._lines.values())]
        values = np.unique(np.concatenate([each.ravel() for each in times]))
        return [float(value) for value in values if np.isfinite(value)]

    def within(self, limit: float) -> Chain | None:
        """Returns the chain of least latency in which no device and no line is busy for longer than ``limit``."""
        n, compute = self._n, [np.where(each <= limit, each, np.inf) for each in self._compute]
        hops = {pair: np.where(busy <= limit, seconds, np.inf) for pair, (busy, seconds) in self._lines.items()}
        tails = np.where(np.isfinite(self._around) & (self._around <= limit), self._tail[None, :], np.inf)
        best, stages = float(compute[0][0, n]), [(0, 0, n)]
        ended = [np.where(np.eye(n, n + 1, dtype=bool), self._front[:, None], np.inf)]  # by device, of (h, b)
        came: list[_Came] = []
        for j in range(1, len(self._devices)):
            arrived = np.stack([ended[i] + hops[i, j] for i in range(j)])  # of (i, h, a)
            total = arrived.min(0)[:, :, None] + compute[j]  # of (h, a, b)
            ended.append(total.min(1))
            came.append((arrived.argmin(0), total.argmin(1)))
            whole = ended[j] + hops[j, 0] + tails  # of (h, b)
            h, b = (int(each) for each in np.unravel_index(int(whole.argmin()), whole.shape))
            if whole[h, b] < best:
                best, stages = float(whole[h, b]), [*_walked(came, j, h, b), *([(0, b, n)] if b < n else [])]
        return self._priced(stages) if np.isfinite(best) else None

    def _priced(self, stages: Sequence[tuple[int, int, int]]) -> Chain:
        """Adds up the costs of given stages; each is (device, start, end)."""
        held, busy = [], [0.0] * len(self._devices)
        for index, start, end in stages:
            device = self._devices[index]
            flops = sum(each.flops for each in self._model.segments[start:end])
            done = self._done[index]
            held.append(Stage(device, start, end, flops, float(done[end] - done[start]),
                              self.work.memory(self._model, start, end)))  # fmt: skip
            busy[index] += held[-1].seconds
        places = [(0, 0), *((index, end) for index, _, end in stages), (0, self._n)]
        ways = [self._hops[i, j][at] for (i, at), (j, _) in itertools.pairwise(places) if i != j]
        hops = tuple(hop for hop in ways if hop is not None)
        latency = sum(busy) + sum(hop.seconds for hop in hops)
        busiest = max([*busy, *(hop.busy for hop in hops)])
        return Chain(tuple(held), hops, latency, max(busiest, latency / self.work.in_flight), self.work.in_flight)


def _hop(model: Profile, devices: Devices, work: Workload, i: int, j: int, boundary: int) -> Hop | None:
    """Returns what passes a boundary from one device to another; ``None`` if it may not, or cannot.

    Backwards passes the gradient, as large as the value itself; none passes back to the inputs. At the last boundary
    the answer goes home, or, in training, the labels have come to the last stage.
    """
    giver, taker = devices.devices[i], devices.devices[j]
    last, backwards = boundary == len(model.segments), work.train and boundary > 0
    passing = [] if last else [(Crossing.ACTIVATIONS if boundary else Crossing.INPUTS, giver, taker)]
    if last and work.train:
        passing = [(Crossing.LABELS, taker, giver)]
    elif backwards:
        passing.append((Crossing.GRADIENTS, taker, giver))
    if (last and j != 0) or not all(devices.may_pass(*each) for each in passing):
        return None
    released = tuple((what, takes) for what, gives, takes in passing if devices.needs_release(gives, takes))
    times = 0 if last and work.train else 2 if backwards else 1
    busy = times * giver.seconds_to(taker, model.crossing[boundary])
    return Hop(giver, taker, boundary, released, busy, busy + times * giver.way_to(taker))


def _walked(came: Sequence["_Came"], j: int, h: int, b: int) -> list[tuple[int, int, int]]:
    """Returns the stages that led to device ``j`` with boundary ``b``, the first device's front included."""
    stages: list[tuple[int, int, int]] = []
    while j:
        via, starts = came[j - 1]
        a = int(starts[h, b])
        stages.append((j, a, b))
        j, b = int(via[h, a]), a
    return [*([(0, 0, h)] if h else []), *reversed(stages)]
