"""Chains in one process over memory sessions: every held piece is a thread with its own copy of the model."""

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clients.chain.driver import ChainDriver
from clients.chain.home import Links, Own
from clients.chain.loop import Bounds, StageLoop
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from clients.channel.limits import Limits
from clients.channel.memory import pair
from clients.channel.session import Opening, Session
from privacy.errors import FederationError
from strategies.analysis import analyse
from strategies.chain_plan import ChainPlan, Optimizer, StageSpec
from strategies.cuts import build as build_piece
from strategies.cuts import find_cuts, split
from strategies.models import build
from strategies.release import AnyRelease
from strategies.task import ModelSpec
from strategies.tracing import trace

OPENING = Opening("stage", bytes(16))
RATE = 0.1
MLP = ModelSpec("mlp", (24, 16, 12), "torch", outputs=5)
CNN = ModelSpec("cnn", (8, 8, 16), "torch", image=(1, 12, 12), outputs=5)
"""With GroupNorm."""
WIDTHS = {MLP: 20, CNN: 144}


def model(spec: ModelSpec) -> nn.Module:
    return build(spec, WIDTHS[spec], seed=5)


def batches(spec: ModelSpec, count: int, records: int = 32) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(records, WIDTHS[spec], generator=random),
            torch.randint(0, spec.outputs, (records,), generator=random).float(),
        )
        for _ in range(count)
    ]


def plan_of(
    whole: nn.Module,
    devices: Sequence[str],
    *,
    train: bool = True,
    optimizer: Optimizer = "sgd",
    micro_batch: int = 2**20,
    in_flight: int = 4,
    releases: tuple[AnyRelease, ...] = (),
) -> ChainPlan:
    """Cuts a model into as many pieces as there are devices; a device's organisation is its name up to the dash."""
    inputs = (torch.zeros(2, next(iter(whole.parameters())).shape[1] if _flat(whole) else 144),)
    traced = trace(whole.train(train), inputs)
    # Right before a layer with parameters, so that every piece has some.
    cuts = list({cut.head_params: cut for cut in find_cuts(analyse(traced, inputs)) if cut.head_params}.values())
    places = [(number * (len(cuts) + 1)) // len(devices) - 1 for number in range(1, len(devices))]
    pieces = split(traced, [cuts[place] for place in places])
    stages = [
        StageSpec(device, device.split("-")[0], piece.start, piece.end, piece.keys, piece.digest)
        for device, piece in zip(devices, pieces, strict=True)
    ]
    return ChainPlan("test", "owner-pc", "owner", tuple(stages), train, optimizer, micro_batch, in_flight, releases)


def _flat(whole: nn.Module) -> bool:
    return next(iter(whole.parameters())).dim() == 2


@dataclass
class Row:
    """A chain at work: the owner's driver, and the others' stages by device."""

    driver: ChainDriver
    links: Links
    own: Own
    held: dict[str, Stage]
    errors: list[FederationError] = field(default_factory=list)

    def parameters(self) -> dict[str, Tensor]:
        modules = [*(stage.module for stage in self.own.stages), *(stage.module for stage in self.held.values())]
        return {name: each for module in modules for name, each in module.named_parameters()}


def stage_of(plan: ChainPlan, spec: StageSpec, whole: nn.Module, rate: float = RATE) -> Stage:
    """Builds a piece as its holder does: from its own copy of the model."""
    inputs = (torch.zeros(2, 20 if _flat(whole) else 144),)
    traced = trace(copy.deepcopy(whole).train(plan.train), inputs)
    return Stage(build_piece(traced, spec.piece), Learning(plan.optimizer, rate) if plan.train else None)


@contextmanager
def at_work(
    plan: ChainPlan,
    whole: nn.Module,
    *,
    releaser: Releaser | None = None,
    deadline: float = 10.0,
    tapped: Callable[[str, Session], Session] = lambda _, session: session,
    limits: Limits | None = None,
) -> Iterator[Row]:
    """Lends a chain over memory sessions; it is closed well after the block.

    Args:
      plan: Who holds what.
      whole: Every party starts from a copy of it.
      releaser: The owner's.
      deadline: Of both sides.
      tapped: Stands between the owner and its session to "first" or "last".
      limits: Of the sessions.
    """
    limits = limits or Limits()
    held = {spec.device: stage_of(plan, spec, whole) for spec in plan.held}
    own = Own(*(None if spec is None else stage_of(plan, spec, whole) for spec in (plan.front, plan.tail)))
    names = [plan.home, *held]
    lines = [pair(a, b, OPENING, limits=limits) for a, b in zip(names, [*names[1:], plan.home], strict=True)]
    if len(held) == 1:
        lines = lines[:1]
    first, last = lines[0][0], (lines[-1][1] if len(held) > 1 else lines[0][0])
    errors: list[FederationError] = []
    threads = []
    for number, (name, stage) in enumerate(held.items()):
        loop = StageLoop(
            stage,
            labels=plan.labels_leave and number == len(held) - 1,
            bounds=Bounds(deadline=deadline, idle=deadline),
        )
        onward = lines[number + 1][0] if len(held) > 1 else lines[0][1]
        threads.append(
            threading.Thread(target=_held, args=(loop, lines[number][1], onward, errors), name=name, daemon=True)
        )
        threads[-1].start()
    ends = (
        Links(tapped("first", first), tapped("last", last))
        if last is not first
        else Links(*[tapped("first", first)] * 2)
    )
    try:
        with ChainDriver(plan, ends, own, releaser, deadline=deadline) as driver:
            yield Row(driver, ends, own, held, errors)
    finally:
        for session in (first, last):
            session.close()
        for thread in threads:
            thread.join(2 * deadline)


def _held(loop: StageLoop, upstream: Session, onward: Session, errors: list[FederationError]) -> None:
    try:
        loop.run(upstream, onward)
    except FederationError as error:
        errors.append(error)
