"""A job: a scenario with a person's options applied, resolved to frozen values and a digest all parties compare."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

import rfc8785

from privacy.dp.plan import DistributedPlan, SitePlan, SumPlan, Unit
from privacy.errors import ConfigError
from privacy.secagg.context import thresholds
from server.rounds import FLOOR
from simulations.data.deal import KINDS
from simulations.faults import check_fault
from simulations.options import Options, to_number, to_whole
from simulations.refusals import check_plan, check_privacy, unit_of
from simulations.scenario import Scenario, load
from strategies.algorithm import Algorithm
from strategies.layout import Layout
from strategies.models import build as build_model
from strategies.models import layout_of
from strategies.parts import AGENTS, AgentSpec, Division
from strategies.regions import Plan
from strategies.registry import build
from strategies.secure_sum import PLAIN, Encoding, summed
from strategies.sub_models import SubModel, by_shape
from strategies.task import ModelSpec, SiteId, Task, Training

_POSITIVE = ("learning_rate", "clip", "update_clip")
_WHOLE = {"local_steps": 1, "batch": 0, "retries": 0}
_DEADLINE = 60.0


@dataclass(frozen=True)
class Job:
    """Everything that decides a run; public.

    Attributes:
      task: The scenario's, with the options applied.
      sites: Who takes part, in the scenario's order.
      privacy: Any of ``record``, ``site``, ``distributed``; empty for none.
      unit: Whom noise in the sum protects: a record, or a site.
      deadline: Seconds the server waits for answers.
      faults: What goes wrong on purpose, per site.
      division: Which part of the model each site trains.
      agents: Whose training code a site runs, and with which settings of its own; torch with the task's if not listed.
    """

    scenario: Scenario
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
    deadline: float
    faults: Mapping[SiteId, str]
    division: Division
    agents: Mapping[SiteId, AgentSpec]

    def spec_of(self, site: SiteId) -> ModelSpec:
        """Returns the model that a site trains: the task's, or a narrower or shallower one."""
        part = self.division.part_of(site)
        return self.task.model.part(part.width, part.depth)

    def part_of(self, site: SiteId) -> SubModel:
        """Returns which coordinates of the model a site trains, and which of its parameters stay with it."""
        return _part(self.task.model, self.spec_of(site), self.task.n_inputs, self.division.private)

    @cached_property
    def plan(self) -> Plan:
        """Who holds what."""
        whole = _layout(self.task.model, self.task.n_inputs)
        return Plan(whole, {site: self.part_of(site) for site in self.sites})

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
            return SitePlan.calibrated(clip=_exact(training.update_clip), **common)
        if "distributed" in self.privacy:
            patients = self.unit is Unit.RECORD and bool(self.task.patient)
            held = summed(self.plan, self.sites, limits.min_cover)
            dropped = len(self.sites) - limits.min_survivors
            return DistributedPlan.calibrated(
                unit=Unit.PATIENT if patients else self.unit,
                clip=_exact(training.update_clip if self.unit is Unit.SITE else training.clip),
                survivors=min(max(limits.min_cover, len(region.holders) - dropped) for region in held),
                colluders=limits.n_c,
                dimension=sum(region.positions.size for region in held),
                **common,
            )
        return None

    @property
    def encoding(self) -> Encoding:
        """What the integers of a masked sum stand for."""
        plan = self.sum_plan
        if plan is None:
            return replace(PLAIN, weighted=not self.equal_weights)
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
    def digest(self) -> str:
        """SHA-256 over everything server and sites must agree on."""
        agreed = {
            "schema": "collegium/job/v1",
            "scenario": self.scenario.name,
            "task": _plain(asdict(self.task)),
            "strategy": {"name": self.strategy, **_plain(vars(self.algorithm))},
            "sites": list(self.sites),
            "seed": self.seed,
            "privacy": {
                "settings": list(self.privacy),
                "unit": str(self.unit),
                "epsilon": str(self.epsilon),
                "delta": str(self.delta),
            },
            "rows": self.scenario.rows_per_site,
            "deal": None if self.scenario.deal is None else _plain(asdict(self.scenario.deal)),
            "secagg": self.secagg,
            "plan": self.plan.digest.hex(),
            "agents": {site: _plain(asdict(self.agent_of(site))) for site in self.sites},
        }
        return hashlib.sha256(rfc8785.dumps(agreed)).hexdigest()

    def without_privacy(self) -> "Job":
        """Returns the same job with plain training: the reference beside a private run."""
        return replace(self, privacy=())

    def without_site(self, site: SiteId) -> "Job":
        """Returns the same job, without privacy, for the other sites."""
        return replace(self.without_privacy(), sites=tuple(other for other in self.sites if other != site))


def resolve(options: Options) -> Job:
    """Applies options to a scenario.

    Raises: ConfigError: Unknown scenario, strategy or setting, a value out of range, or a combination that is refused.
    """
    scenario = load(options.scenario)
    strategy = options.strategy or "fedavg"
    settings = dict(options.settings)
    training = _training(scenario.task.training_for(strategy), settings, options.rounds)
    sites = _participants(scenario, options.sites)
    if "deal" in settings:
        scenario = _dealt(scenario, settings.pop("deal"))
    deadline = _deadline(settings)
    rows = to_whole("rows", settings.pop("rows", str(scenario.rows_per_site)), low=0)
    scenario = replace(scenario, rows_per_site=rows)
    faults, agents = _faults(settings, sites), _agents(settings, scenario, sites)
    settings_unit = settings.pop("unit", "")
    given = {key: to_number(key, value) for key, value in settings.items()}
    algorithm = build(strategy, {**scenario.task.settings_for(strategy), **given})
    if options.secagg and not algorithm.is_sum:
        raise ConfigError(
            f"{strategy} needs single updates: it does not pair with secure aggregation", hint="Add --no-secagg."
        )
    chosen = tuple(name for name in options.privacy.split("+") if name != "none")
    unit = unit_of(settings_unit, chosen, training)
    check_privacy(scenario, algorithm, chosen, unit, secagg=options.secagg)
    job = Job(
        scenario=scenario,
        task=replace(scenario.task, training=training),
        strategy=strategy,
        algorithm=algorithm,
        sites=sites,
        seed=options.seed,
        privacy=chosen,
        unit=unit,
        secagg=options.secagg,
        epsilon=options.epsilon,
        delta=options.delta,
        deadline=deadline,
        faults=faults,
        division=scenario.division,
        agents=agents,
    )
    check_plan(job)
    return job


def _training(training: Training, settings: dict[str, str], rounds: int) -> Training:
    """Takes the training settings out of ``settings`` and applies them."""
    values: dict[str, Any] = {"rounds": rounds} if rounds else {}
    for key, low in _WHOLE.items():
        if key in settings:
            values[key] = to_whole(key, settings.pop(key), low=low)
    for key in _POSITIVE:
        if key in settings:
            values[key] = to_number(key, settings.pop(key))
            if values[key] <= 0:
                raise ConfigError(f"--set {key} must be positive")
    return replace(training, **values)


def _participants(scenario: Scenario, wanted: int) -> tuple[SiteId, ...]:
    every = tuple(site.id for site in scenario.sites)
    if wanted > len(every):
        raise ConfigError(f"{scenario.name} has {len(every)} sites, not {wanted}")
    if 0 < (wanted or len(every)) < FLOOR:
        raise ConfigError(
            f"at least {FLOOR} sites must take part: below three, no sum is ever opened",
            hint=f"{scenario.name} has {len(every)} sites.",
        )
    return every[: wanted or len(every)]


def _deadline(settings: dict[str, str]) -> float:
    deadline = to_number("deadline", settings.pop("deadline", str(_DEADLINE)))
    if deadline <= 0:
        raise ConfigError("--set deadline must be positive")
    return deadline


def _dealt(scenario: Scenario, kind: str) -> Scenario:
    """Returns the scenario with its one table dealt to the sites in another way."""
    if scenario.deal is None:
        raise ConfigError(f"--set deal: the sites of {scenario.name} have rows of their own")
    if kind not in KINDS:
        raise ConfigError(f"--set deal: {kind!r} is not one of: {', '.join(KINDS)}")
    return replace(scenario, deal=replace(scenario.deal, kind=kind))


def _agents(settings: dict[str, str], scenario: Scenario, sites: tuple[SiteId, ...]) -> Mapping[SiteId, AgentSpec]:
    agents = {site: agent for site, agent in scenario.agents.items() if site in sites}
    for key in [key for key in settings if key.startswith("agent.")]:
        site, kind = SiteId(key.removeprefix("agent.")), settings.pop(key)
        if site not in sites:
            raise ConfigError(f"--set {key}: no such site takes part", hint=f"Sites: {', '.join(sites)}.")
        known = next((one for one in AGENTS if one == kind), None)
        if known is None:
            raise ConfigError(f"--set {key}: there is no agent {kind!r}", hint=f"There are: {', '.join(AGENTS)}.")
        agents[site] = replace(agents.get(site, AgentSpec()), kind=known)
    return MappingProxyType(agents)


def _faults(settings: dict[str, str], sites: tuple[SiteId, ...]) -> Mapping[SiteId, str]:
    faults: dict[SiteId, str] = {}
    for key in [key for key in settings if key.startswith("fault.")]:
        site, fault = SiteId(key.removeprefix("fault.")), settings.pop(key)
        if site not in sites:
            raise ConfigError(f"--set {key}: no such site takes part", hint=f"Sites: {', '.join(sites)}.")
        check_fault(fault)
        faults[site] = fault
    return MappingProxyType(faults)


@lru_cache(maxsize=32)
def _layout(spec: ModelSpec, n_inputs: int) -> Layout:
    return layout_of(build_model(spec, n_inputs, seed=0))


@lru_cache(maxsize=32)
def _part(whole: ModelSpec, piece: ModelSpec, n_inputs: int, private: tuple[str, ...]) -> SubModel:
    return by_shape(_layout(whole, n_inputs), _layout(piece, n_inputs), private=private)


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return repr(value) if isinstance(value, float) else value  # canonical JSON knows no infinity
