"""A job: everything that decides a run, resolved to frozen values, and the digest of it that all parties compare.

The coordinator resolves a job to propose it, every site resolves its own from its own files and the proposal; a
simulation adds where its rows come from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from typing import Any

import rfc8785

from privacy.dp.plan import DistributedPlan, RecordPlan, SitePlan, SumPlan, Unit
from privacy.secagg.context import thresholds
from strategies import chain_job
from strategies.algorithm import Algorithm
from strategies.chain_spec import ChainSpec
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.models import build, layout_of, to_vector
from strategies.parts import AgentSpec, Division
from strategies.regions import Plan
from strategies.secure_sum import PLAIN, Encoding, summed
from strategies.study import plain
from strategies.sub_models import SubModel, by_shape, front
from strategies.task import ModelSpec, SiteId, Task


@dataclass(frozen=True)
class Job:
    """Everything that decides a run; public.

    Attributes:
      name: Of the study.
      task: The study's, with the settings of this run applied.
      sites: Who takes part, in the study's order.
      privacy: Any of ``record``, ``site``, ``distributed``; empty for none.
      unit: Whom noise in the sum protects: a record, or a site.
      division: Which part of the model each site trains.
      agents: Whose training code a site runs, and with which settings of its own; torch with the task's if not listed.
      chain: Where the model is cut for split training: sites train and send front and tail, the rest stays at the
        holder.
    """

    name: str
    task: Task
    strategy: str
    algorithm: Algorithm[Any]
    sites: tuple[SiteId, ...]
    seed: int
    privacy: tuple[str, ...]
    unit: Unit
    secagg: bool
    epsilon: Decimal
    delta: Decimal
    division: Division
    agents: Mapping[SiteId, AgentSpec]
    chain: ChainSpec | None = field(default=None, kw_only=True)

    def spec_of(self, site: SiteId) -> ModelSpec:
        """Returns the model that a site trains: the task's, or a narrower or shallower one.

        Of a cut model, that of the whole chain, of which the site trains its part.
        """
        part = self.division.part_of(site)
        return self.task.model.part(part.width, part.depth)

    def part_of(self, site: SiteId) -> SubModel:
        """Returns which coordinates of the model a site trains, and which of its parameters stay with it."""
        if self.chain is not None:
            return _ends(self.task.model, self.task.n_inputs, self.chain)
        return _part(self.task.model, self.spec_of(site), self.task.n_inputs, self.division.private)

    def initial_of(self, site: SiteId) -> Vector:
        """Returns the parameters of a site's piece before round 1; public."""
        if self.chain is not None:
            return self.initial[self.part_of(site).held]  # a cut keeps the order of the whole
        return to_vector(build(self.spec_of(site), self.task.n_inputs, self.seed))

    @property
    def initial(self) -> Vector:
        """Parameters before round 1, shape ``(d,)``; public."""
        return to_vector(build(self.task.model, self.task.n_inputs, self.seed))

    @cached_property
    def plan(self) -> Plan:
        """Who holds what."""
        whole = _layout(self.task.model, self.task.n_inputs)
        return Plan(whole, {site: self.part_of(site) for site in self.sites})

    def part_name(self, site: SiteId) -> str:
        """Names the part that a site trains, for people."""
        if self.chain is not None:
            return "front and tail" if self.chain.tail else "front"
        return self.division.part_of(site).name

    def agent_of(self, site: SiteId) -> AgentSpec:
        """Returns whose training code a site runs."""
        return self.agents.get(site, AgentSpec())

    @property
    def max_attempts(self) -> int:
        """Attempts a site may be asked for; the privacy plan prices all of them."""
        return self.task.training.rounds + self.task.training.retries

    @property
    def record_privacy(self) -> bool:
        """Whether every local step is noisy."""
        return "record" in self.privacy

    @cached_property
    def sum_plan(self) -> SumPlan | None:
        """The plan of noise in the sum, calibrated for the whole run; public, the same for every site.

        Raises: ConfigError: No noise meets the target.
        """
        training, limits = self.task.training, thresholds(len(self.sites))
        common: dict[str, Any] = {"target": self.epsilon, "delta": self.delta, "max_attempts": self.max_attempts}
        if "site" in self.privacy:
            return SitePlan.calibrated(clip=exact(training.update_clip), **common)
        if "distributed" in self.privacy:
            patients = self.unit is Unit.RECORD and bool(self.task.patient)
            held = summed(self.plan, self.sites, limits.min_cover)
            dropped = len(self.sites) - limits.min_survivors
            return DistributedPlan.calibrated(
                unit=Unit.PATIENT if patients else self.unit,
                clip=exact(training.update_clip if self.unit is Unit.SITE else training.clip),
                survivors=min(max(limits.min_cover, len(region.holders) - dropped) for region in held),
                colluders=limits.n_c,
                dimension=sum(region.positions.size for region in held),
                **common,
            )
        return None

    def record_plan(self, site: SiteId, n_units: int) -> RecordPlan | None:
        """Returns the plan of noise in every step of a site's training, or ``None`` without it.

        Args:
          site: Whose training settings count.
          n_units: Its training records, or patients where the task names them; public.

        Raises: ConfigError: No noise meets the target.
        """
        if not self.record_privacy:
            return None
        training = self.agent_of(site).training(self.task.training)
        plan = RecordPlan.calibrated(
            target=self.epsilon,
            delta=self.delta,
            clip=exact(training.clip),
            n_records=n_units,
            batch=training.batch,
            steps_per_attempt=training.local_steps,
            max_attempts=self.max_attempts,
        )
        return replace(plan, unit=Unit.PATIENT if self.task.patient else Unit.RECORD)

    @property
    def encoding(self) -> Encoding:
        """What the integers of a masked sum stand for."""
        plan = self.sum_plan
        if plan is None:
            return PLAIN
        # A sum over records is a sum of gradients: the mean update is one step downhill.
        step = 1.0 if self.unit is Unit.SITE else -self.task.training.learning_rate
        return Encoding.clipped(plan.units, step * float(plan.clip))

    @property
    def equal_weights(self) -> bool:
        """Whether every site counts alike: where a site is what the noise hides, and where regions differ.

        From the weights of two regions, one inside the other, a site's number of records could be read.
        """
        return (self.sum_plan is not None and self.unit is Unit.SITE) or len(self.plan.regions()) > 1

    @property
    def rows(self) -> Mapping[str, Any]:
        """What a job itself says about rows: nothing, since they are the sites' own; a simulation deals them."""
        return {}

    @property
    def digest(self) -> str:
        """SHA-256 over everything server and sites must agree on."""
        agreed = {
            "schema": "collegium/job/v1",
            "study": self.name,
            "task": plain(asdict(self.task)),
            "strategy": {"name": self.strategy, **plain(vars(self.algorithm))},
            "sites": list(self.sites),
            "seed": self.seed,
            "privacy": {
                "settings": list(self.privacy),
                "unit": str(self.unit),
                "epsilon": str(self.epsilon),
                "delta": str(self.delta),
            },
            "rows": plain(self.rows),
            "secagg": self.secagg,
            "plan": self.plan.digest.hex(),
            "agents": {site: plain(asdict(self.agent_of(site))) for site in self.sites},
            **({} if self.chain is None else {"chain": self.chain.to_json()}),
        }
        return hashlib.sha256(rfc8785.dumps(agreed)).hexdigest()


def exact(value: float) -> Decimal:
    """Returns the shortest decimal that a float is read from."""
    return Decimal(repr(value))


@lru_cache(maxsize=32)
def _layout(spec: ModelSpec, n_inputs: int) -> Layout:
    return layout_of(build(spec, n_inputs, seed=0))


@lru_cache(maxsize=32)
def _ends(spec: ModelSpec, n_inputs: int, chain: ChainSpec) -> SubModel:
    cut = chain_job.pieces(spec, n_inputs, chain.front, chain.tail)
    home = [cut[0], *cut[2:]]
    return front(_layout(spec, n_inputs), [key for piece in home for key in piece.keys])


@lru_cache(maxsize=32)
def _part(whole: ModelSpec, piece: ModelSpec, n_inputs: int, private: tuple[str, ...]) -> SubModel:
    return by_shape(_layout(whole, n_inputs), _layout(piece, n_inputs), private=private)
