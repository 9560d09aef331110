"""The agent of a site whose model is cut: it trains front and tail at home, through the piece that a holder has.

Without a privacy plan every step is, bit for bit, the step of the whole model. With one, the gradients of front and
tail are clipped together, record by record, summed and noised as the whole model's would be. That is a claim about the
ends' weights, and about nothing that crosses: it assumes that the holder returns for each record a gradient that
depends on that record alone, which a piece that learns from the records does not. So in a run with any privacy setting
the held piece stands still.

Symbols: ``p`` parameters of front and tail.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol

import torch
from torch import nn

from clients.agent import LocalWork
from clients.batches import batch_at
from clients.chain.driver import ChainDriver
from clients.chain.home import Own
from clients.chain.in_process import in_process
from clients.chain.released import Releaser
from clients.chain.stage import Learning, Stage
from clients.channel.session import ChannelError, told
from clients.records import Records
from clients.training import GradientSource, Steps, noisy_mean, set_gradients, train
from privacy.dp.noise import Entropy, poisson_mask
from privacy.dp.plan import RecordPlan
from privacy.errors import ConfigError, RemoteProtocolError
from strategies.chain_job import FEW_RECORDS
from strategies.chain_plan import ChainPlan
from strategies.contribution import Vector
from strategies.cuts import build as build_piece
from strategies.models import build
from strategies.release import UnsafeRelease
from strategies.task import ModelSpec, SiteId, Training
from strategies.tracing import Trace, trace

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Leg:
    """What an attempt of a round asks of the holder; public.

    Attributes:
      round: From 1.
      attempt: Of the round, from 1.
      steps: That will be taken, each over any record at most once.
      learning_rate: Of the held piece; 0: it stands still.
      weight: Of this site's copy of the held piece in the mean over sites.
    """

    round: int
    attempt: int
    steps: int
    learning_rate: float
    weight: int


class OpenChain(Protocol):
    """Pays for what will leave, and opens the chain."""

    def __call__(self, plan: ChainPlan, own: Own, leg: Leg, entropy: Entropy) -> AbstractContextManager[ChainDriver]:
        """Lends the driver; the chain is closed in order after a block that ends well.

        Raises: FederationError: A budget or the holder refuses; nothing left.
        """


@dataclass(frozen=True, eq=False)
class ChainAgent:
    """Split training (SplitFed: Thapa et al., AAAI 2022). See `clients.agent.Agent`.

    Attributes:
      chain: Of this site.
      model: The whole one; only its ends are trained and kept here.
      training: With the site's own settings in place.
      records: Training records. Secret.
      seed: Orders batches where there is no plan; noise never depends on it.
      plan: Noise in every step over front and tail, or ``None``.
      still: Whether the held piece must stand still, since the run has a privacy setting.
      weight: Of this site in means over sites; public.
      open: ``None`` where nobody trains, only looks.

    Raises: ConfigError: A plan whose batches are drawn: the holder sees which records come.
    """

    offers: ClassVar[frozenset[str]] = frozenset({"none", "record", "site", "distributed"})
    site: SiteId
    chain: ChainPlan
    model: ModelSpec
    n_inputs: int
    training: Training
    records: Records = field(repr=False)
    seed: int
    plan: RecordPlan | None = None
    still: bool = False
    weight: int = 1
    open: OpenChain | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.plan is None:
            return
        if self.plan.steps_per_attempt != self.training.local_steps or not self.still:
            raise ConfigError(f"the privacy plan of {self.site} is of other steps than it takes through the chain")
        if self.plan.sampling.rate != 1:
            raise ConfigError(f"a holder sees which records of {self.site} enter a step: every step takes all of them")

    def train(self, start: Vector, work: LocalWork) -> Vector:
        """Takes ``local_steps`` steps through the chain. See `Agent.train`.

        Raises:
          ConfigError: The strategy corrects steps, or there is no holder to dial.
          RemoteProtocolError: The chain broke; nothing of this attempt is kept.
        """
        if work.rule.proximal or work.drift is not None or self.open is None:
            raise ConfigError(f"{self.site} takes plain steps through its chain, and only with its holder")
        torch.set_num_threads(1)  # as in all training here
        traced = _traced(self.model, self.n_inputs)
        own, ends = self._at_home(traced)
        steps, rate = self.training.local_steps, 0.0 if self.still else self.training.learning_rate
        leg = Leg(work.round_number, work.attempt, steps, rate, self.weight)
        try:
            with self.open(self.chain, own, leg, work.entropy) as driver:
                source = self._plain(driver) if self.plan is None else self._private(driver, self.plan, work.entropy)
                return train(ends, start, Steps(self.training, (work.round_number - 1) * steps, steps), source)
        except ChannelError as error:
            _LOG.warning("the chain of %s broke: %s", self.site, error)
            raise RemoteProtocolError(
                f"the chain of {self.site} broke: {told(error)[:200]}", site_id=self.site, phase="train"
            ) from error

    def rehearsed(self, records: Records, plan: RecordPlan | None) -> "ChainAgent":
        """Returns this agent on made-up records, with a holder in this process to which it may show them."""
        return replace(self, records=records, plan=plan, open=self._opened_here)

    def _opened_here(
        self, plan: ChainPlan, own: Own, leg: Leg, entropy: Entropy
    ) -> AbstractContextManager[ChainDriver]:
        shown = [UnsafeRelease(each.owner, each.to, each.what, "made-up records") for each in plan.releases]
        bare, (spec,) = replace(plan, releases=tuple(shown)), plan.held
        releaser = Releaser(bare, payer=None, entropy=entropy, record=lambda _record: None)
        releaser.pay(leg.steps)
        held = Stage(build_piece(_traced(self.model, self.n_inputs), spec.piece), Learning(plan.optimizer, 0.0))
        return in_process(bare, own, held, releaser)

    def _at_home(self, traced: Trace) -> tuple[Own, "_Ends"]:
        """Returns the stages at home, and their parameters in the whole model's order."""
        specs, learning = (
            (self.chain.front, self.chain.tail),
            Learning(self.chain.optimizer, self.training.learning_rate),
        )
        built = [None if spec is None else build_piece(traced, spec.piece) for spec in specs]
        ends = {parameter for piece in built if piece is not None for parameter in piece.parameters()}
        front, tail = (None if piece is None else Stage(piece, learning) for piece in built)
        return Own(front, tail), _Ends([each for each in traced.model.parameters() if each in ends])

    def _plain(self, driver: ChainDriver) -> GradientSource:
        inputs, labels = torch.from_numpy(self.records.x), torch.from_numpy(self.records.y)

        def gradient(_ends: nn.Module, step: int) -> None:
            rows = batch_at(seed=self.seed, site=self.site, step=step, n_records=len(labels), batch=self.training.batch)
            chosen = torch.from_numpy(rows)
            driver.accumulate(inputs[chosen], labels[chosen], records=rows.tolist())

        return gradient

    def _private(self, driver: ChainDriver, plan: RecordPlan, entropy: Entropy) -> GradientSource:
        if self.records.n_units != plan.n_records:
            raise ConfigError(f"the plan of {self.site} was made for another number of records than it has")

        def gradient(ends: nn.Module, _step: int) -> None:
            # All of them: the coins are tossed all the same, so that a step draws what a step without a chain draws.
            chosen, sizes = self.records.of_units(poisson_mask(1.0, plan.n_records, entropy))
            found = driver.per_record(torch.from_numpy(chosen.x), torch.from_numpy(chosen.y))
            batch = (*found.batch[:2], sizes)
            released = noisy_mean(found.model, found.losses, batch, plan, entropy=entropy)
            # The pieces' own order is the front's and then the tail's; every parameter is one object in both.
            set_gradients(list(found.model.parameters()), released)
            if any(each.grad is None for each in ends.parameters()):
                raise ConfigError("a parameter of the ends takes no part in the output")

        return gradient


class _Ends(nn.Module):
    """The parameters at home as one flat vector in the whole model's order; it computes nothing."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.values = nn.ParameterList(parameters)


def _traced(spec: ModelSpec, n_inputs: int) -> Trace:
    """Traces the model afresh; its values do not matter, they are loaded before every round."""
    return trace(build(spec, n_inputs, seed=0), (torch.zeros(FEW_RECORDS, n_inputs),))
