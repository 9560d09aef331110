"""Holders for tests: a small model, plans that cut it, and services whose sessions stay in this process.

Home is ``alba``; ``brno`` and ``cork`` hold what is between. The whole model in one place is what a chain is compared
with.
"""

import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch
from torch import Tensor, nn

from clients.chain.held import State
from clients.chain.home import Own
from clients.chain.installed import Installed
from clients.chain.opening import Dial
from clients.chain.request import KIND, StageRequest
from clients.chain.serve_command import allowed
from clients.chain.service import StageService
from clients.chain.stage import Learning, Stage
from clients.channel.memory import pair
from clients.channel.session import Opening, RemoteRefusalError, Session, told
from privacy.errors import FederationError
from privacy.policy.channel_requests import HoldFacts
from privacy.store.log import Record
from strategies.analysis import analyse
from strategies.chain_plan import ChainPlan, StageSpec
from strategies.cuts import find_cuts, split
from strategies.losses import mean_loss
from strategies.release import AnyRelease, Crossing, UnsafeRelease

RATE = 0.1
INPUTS, CLASSES = 6, 3
EVERYTHING = frozenset(Crossing)
HOLDERS = ("brno", "cork")
OPEN = tuple(UnsafeRelease("alba", to, EVERYTHING, "made-up numbers") for to in HOLDERS)


def mlp() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model, always the same one: what ``module:factory`` is."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        module = nn.Sequential(
            nn.Linear(INPUTS, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(),
            nn.Linear(8, CLASSES),
        )  # fmt: skip
    return module, (torch.zeros(2, INPUTS),)


MLP = Installed("a small model", lambda _seed: mlp())
CNN = Installed("a small image model", lambda _seed: cnn())


def cnn() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Convolutions and GroupNorm, of images of 1 x 8 x 8."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(6)
        module = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(1, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1),
            nn.GroupNorm(1, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 8), nn.ReLU(), nn.Linear(8, CLASSES),
        )  # fmt: skip
    return module, (torch.zeros(2, 1, 8, 8),)


def plan_of(
    installed: Installed = MLP,
    places: Iterable[str] = ("alba", "brno", "cork", "alba"),
    *,
    train: bool = True,
    releases: tuple[AnyRelease, ...] = OPEN,
    micro_batch: int = 100,
    in_flight: int = 1,
    optimizer: str = "sgd",
) -> ChainPlan:
    """A plan that cuts a model into as many pieces as places, after layers with weights."""
    named = [*places]
    traced, inputs = installed.traced(0, train=train)
    cuts = [cut for cut in find_cuts(analyse(traced, inputs)) if cut.head_params]
    step = len(cuts) // (len(named) - 1)
    pieces = split(traced, [cuts[number * step] for number in range(len(named) - 1)])
    stages = tuple(
        StageSpec(name, name, piece.start, piece.end, piece.keys, piece.digest)
        for name, piece in zip(named, pieces, strict=True)
    )
    return ChainPlan("small", "alba", "alba", stages, train, optimizer, micro_batch, in_flight, releases)  # type: ignore[arg-type]


def own_of(plan: ChainPlan, installed: Installed = MLP, rate: float = RATE) -> Own:
    """The pieces at home."""

    def at_work(spec: StageSpec | None) -> Stage | None:
        learning = Learning(plan.optimizer, rate) if plan.train else None
        return None if spec is None else Stage(installed.piece(spec, 0, train=plan.train), learning)

    return Own(at_work(plan.front), at_work(plan.tail))


def batch(number: int, installed: Installed = MLP, records: int = 12) -> tuple[Tensor, Tensor]:
    """A batch of made-up records."""
    drawn = np.random.default_rng(number)
    shape = (records, *installed.make(0)[1][0].shape[1:])
    labels = torch.from_numpy(drawn.integers(0, CLASSES, records).astype(np.float32))
    return torch.from_numpy(drawn.normal(size=shape).astype(np.float32)), labels


def kept(folder: Path, run: str, site: str, number: int = 1, attempt: int = 1) -> State:
    """The copy of a piece that a holder kept of a round that alba trained by itself."""
    path = folder / "of-alba" / run / site / f"{number}-{attempt}-1-alba.safetensors"
    return dict(safetensors.numpy.load_file(path))


def whole(installed: Installed, steps: int, records: int = 12) -> State:
    """Parameters of the whole model after so many steps of SGD in one place, on one thread."""
    torch.set_num_threads(1)
    module = installed.make(0)[0].train()
    optimizer = torch.optim.SGD(module.parameters(), lr=RATE)
    for number in range(steps):
        inputs, labels = batch(number, installed, records)
        optimizer.zero_grad()
        mean_loss(module(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return {key: value.detach().numpy().copy() for key, value in module.state_dict().items()}


@dataclass
class Holders:
    """Services of several sites, joined in memory.

    Attributes:
      refusals: What a gate raises, by site; otherwise it lets everything pass.
      records: What each site logged.
      asked: What each gate was asked.
    """

    folder: Path
    installed: Installed = MLP
    refusals: dict[str, FederationError] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=lambda: {name: [] for name in HOLDERS})
    asked: dict[str, list[HoldFacts]] = field(default_factory=lambda: {name: [] for name in HOLDERS})
    services: dict[str, StageService] = field(default_factory=dict)
    sessions: list[Session] = field(default_factory=list)
    threads: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in HOLDERS:
            self.services[name] = StageService(
                site=name, device="", installed=self.installed, authorise=allowed, gate=self._gate(name),
                dial=self.dial_of(name), held=self.folder / name, record=self.records[name].append, deadline=5.0,
            )  # fmt: skip

    def dial_of(self, peer: str) -> Dial:
        """How a site opens sessions to the others."""

        def dial(stage: StageSpec, request: StageRequest, purpose: str) -> Session:
            opening = Opening(KIND, secrets.token_bytes(16), request.encode(), purpose)
            service = self.services[stage.device]
            try:
                opened = service.admit(peer, opening)
            except FederationError as error:
                raise RemoteRefusalError(stage.organisation, told(error)) from error
            near, far = pair(peer, stage.organisation, opening, opened=opened)
            self.sessions += [near, far]
            self.threads.append(threading.Thread(target=service.run, args=(far,), daemon=True))
            self.threads[-1].start()
            return near

        return dial

    def ended(self) -> None:
        """Waits until every service has come to its end."""
        for thread in self.threads:
            thread.join(20)
            assert not thread.is_alive()

    def _gate(self, name: str) -> Any:
        def gate(facts: HoldFacts) -> None:
            self.asked[name].append(facts)
            if name in self.refusals:
                raise self.refusals[name]

        return gate
