"""A job: a scenario with a person's options applied, resolved to frozen values and a digest all parties compare."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

from clients.agents import check_agents
from privacy.errors import ConfigError
from server.rounds import FLOOR
from simulations.data.deal import KINDS
from simulations.faults import check_fault
from simulations.options import Options, to_number, to_whole
from simulations.scenario import Scenario, load
from strategies import job as agreed
from strategies.parts import AGENTS, AgentSpec
from strategies.refusals import check_plan, check_privacy, unit_of
from strategies.registry import build
from strategies.task import SiteId, Training

_POSITIVE = ("learning_rate", "clip", "update_clip")
_WHOLE = {"local_steps": 1, "batch": 0, "retries": 0}
_DEADLINE = 60.0


@dataclass(frozen=True)
class Job(agreed.Job):
    """A job with the rows it runs on, as a simulation has them; public.

    Attributes:
      deadline: Seconds the server waits for answers.
      faults: What goes wrong on purpose, per site.
    """

    scenario: Scenario
    deadline: float
    faults: Mapping[SiteId, str]

    @property
    def rows(self) -> Mapping[str, Any]:
        """Which of the scenario's rows each site has."""
        deal = self.scenario.deal
        return {"limit": self.scenario.rows_per_site, "deal": None if deal is None else asdict(deal)}

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
    chosen = tuple(name for name in options.privacy.split("+") if name != "none")
    job = Job(
        name=scenario.name,
        scenario=scenario,
        task=replace(scenario.task, training=training),
        strategy=strategy,
        algorithm=algorithm,
        sites=sites,
        seed=options.seed,
        privacy=chosen,
        unit=unit_of(settings_unit, chosen),
        secagg=options.secagg,
        epsilon=options.epsilon,
        delta=options.delta,
        deadline=deadline,
        faults=faults,
        division=scenario.division,
        agents=agents,
        chain=scenario.chain,
    )
    check_privacy(job, refused=scenario.record_privacy_refused)
    check_agents(job, sites)
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
