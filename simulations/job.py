"""A job: a scenario with a person's options applied, resolved to frozen values and a digest all parties compare."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import rfc8785

from privacy.errors import ConfigError
from server.rounds import FLOOR
from simulations.faults import check_fault
from simulations.options import Options, to_number, to_whole
from simulations.scenario import Scenario, load
from strategies.algorithm import Algorithm
from strategies.registry import build
from strategies.task import SiteId, Task, Training

_POSITIVE = ("learning_rate", "clip")
_WHOLE = {"local_steps": 1, "batch": 0, "retries": 0}
_DEADLINE = 60.0


@dataclass(frozen=True)
class Job:
    """Everything that decides a run; public.

    Attributes:
      task: The scenario's, with the options applied.
      sites: Who takes part, in the scenario's order.
      deadline: Seconds the server waits for answers.
      faults: What goes wrong on purpose, per site.
    """

    scenario: Scenario
    task: Task
    strategy: str
    algorithm: Algorithm[Any]
    sites: tuple[SiteId, ...]
    seed: int
    record_privacy: bool
    secagg: bool
    epsilon: Decimal
    delta: Decimal
    deadline: float
    faults: Mapping[SiteId, str]

    @property
    def max_attempts(self) -> int:
        """Attempts a site may be asked for; the privacy plan prices all of them."""
        return self.task.training.rounds + self.task.training.retries

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
                "record": self.record_privacy,
                "epsilon": str(self.epsilon),
                "delta": str(self.delta),
            },
            "rows": self.scenario.rows_per_site,
            "secagg": self.secagg,
        }
        return hashlib.sha256(rfc8785.dumps(agreed)).hexdigest()

    def without_privacy(self) -> "Job":
        """Returns the same job with plain training: the reference beside a private run."""
        return replace(self, record_privacy=False)

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
    deadline = to_number("deadline", settings.pop("deadline", str(_DEADLINE)))
    if deadline <= 0:
        raise ConfigError("--set deadline must be positive")
    rows = to_whole("rows", settings.pop("rows", str(scenario.rows_per_site)), low=0)
    scenario = replace(scenario, rows_per_site=rows)
    faults = _faults(settings, sites)
    given = {key: to_number(key, value) for key, value in settings.items()}
    algorithm = build(strategy, {**scenario.task.settings_for(strategy), **given})
    if options.secagg and not algorithm.is_sum:
        raise ConfigError(
            f"{strategy} needs single updates: it does not pair with secure aggregation", hint="Add --no-secagg."
        )
    record_privacy = options.privacy == "record"
    if record_privacy and scenario.record_privacy_refused:
        raise ConfigError(
            f"{scenario.name} refuses --privacy record: {scenario.record_privacy_refused}",
            hint="Run it with --privacy none, or take another scenario.",
        )
    return Job(
        scenario=scenario,
        task=replace(scenario.task, training=training),
        strategy=strategy,
        algorithm=algorithm,
        sites=sites,
        seed=options.seed,
        record_privacy=record_privacy,
        secagg=options.secagg,
        epsilon=options.epsilon,
        delta=options.delta,
        deadline=deadline,
        faults=faults,
    )


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


def _faults(settings: dict[str, str], sites: tuple[SiteId, ...]) -> Mapping[SiteId, str]:
    faults: dict[SiteId, str] = {}
    for key in [key for key in settings if key.startswith("fault.")]:
        site, fault = SiteId(key.removeprefix("fault.")), settings.pop(key)
        if site not in sites:
            raise ConfigError(f"--set {key}: no such site takes part", hint=f"Sites: {', '.join(sites)}.")
        check_fault(fault)
        faults[site] = fault
    return MappingProxyType(faults)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return repr(value) if isinstance(value, float) else value  # canonical JSON knows no infinity
