"""A job: a scenario with a person's options applied, resolved to frozen values and a digest all parties compare."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Any

import rfc8785

from privacy.dp.plan import DistributedPlan, SitePlan, SumPlan, Unit
from privacy.errors import ConfigError
from privacy.secagg.context import thresholds
from server.rounds import FLOOR
from simulations.faults import check_fault
from simulations.options import Options, to_number, to_whole
from simulations.scenario import Scenario, load
from strategies.algorithm import Algorithm
from strategies.models import size_of
from strategies.registry import build
from strategies.secure_sum import PLAIN, Encoding
from strategies.task import SiteId, Task, Training

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
            return DistributedPlan.calibrated(
                unit=Unit.PATIENT if patients else self.unit,
                clip=_exact(training.update_clip if self.unit is Unit.SITE else training.clip),
                survivors=limits.min_survivors,
                colluders=limits.n_c,
                dimension=size_of(self.task.model, self.task.n_inputs),
                **common,
            )
        return None

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
        """Whether every site counts alike, as it must where a site is what the noise hides."""
        return self.sum_plan is not None and self.unit is Unit.SITE

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
            "secagg": self.secagg,
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
    deadline = to_number("deadline", settings.pop("deadline", str(_DEADLINE)))
    if deadline <= 0:
        raise ConfigError("--set deadline must be positive")
    rows = to_whole("rows", settings.pop("rows", str(scenario.rows_per_site)), low=0)
    scenario = replace(scenario, rows_per_site=rows)
    faults = _faults(settings, sites)
    settings_unit = settings.pop("unit", "")
    given = {key: to_number(key, value) for key, value in settings.items()}
    algorithm = build(strategy, {**scenario.task.settings_for(strategy), **given})
    if options.secagg and not algorithm.is_sum:
        raise ConfigError(
            f"{strategy} needs single updates: it does not pair with secure aggregation", hint="Add --no-secagg."
        )
    chosen = tuple(name for name in options.privacy.split("+") if name != "none")
    unit = _unit(settings_unit, chosen, training)
    _check_privacy(scenario, algorithm, chosen, unit, secagg=options.secagg)
    return Job(
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
    )


def _unit(wanted: str, privacy: tuple[str, ...], training: Training) -> Unit:
    """Chooses whom noise in the sum protects: a record, unless something else is asked for or stands against it."""
    if wanted and "distributed" not in privacy:
        raise ConfigError(
            "--set unit goes with --privacy distributed", hint="record and site have their unit in the name."
        )
    if wanted not in ("", "record", "site"):
        raise ConfigError(f"--set unit is record or site, not {wanted}")
    if "site" in privacy or "record" in privacy or wanted == "site":
        if wanted == "record" and "record" in privacy:
            raise ConfigError("--privacy record with distributed protects records twice", hint="Add --set unit=site.")
        return Unit.SITE if set(privacy) & {"site", "distributed"} else Unit.RECORD
    if "distributed" in privacy and (training.local_steps, training.batch) != (1, 0):
        raise ConfigError(
            "--privacy distributed sums records, which is one step a round over all of them",
            hint="Add --set local_steps=1 --set batch=0, or --set unit=site.",
        )
    return Unit.RECORD


def _check_privacy(
    scenario: Scenario, algorithm: Algorithm[Any], privacy: tuple[str, ...], unit: Unit, *, secagg: bool
) -> None:
    """Refuses what a privacy setting does not cover."""
    if privacy and unit is Unit.RECORD and scenario.record_privacy_refused:
        raise ConfigError(
            f"{scenario.name} refuses --privacy {privacy[0]}: {scenario.record_privacy_refused}",
            hint="Run it with --privacy none, or take another scenario.",
        )
    in_sum = [name for name in privacy if name != "record"]
    if in_sum and not secagg:
        raise ConfigError(
            f"--privacy {in_sum[0]} adds noise to a masked sum: it needs secure aggregation", hint="Drop --no-secagg."
        )
    if in_sum and algorithm.declared.arrays != ("update",):
        raise ConfigError(
            f"--privacy {in_sum[0]} covers one update a round, and {algorithm.name} sends"
            f" {' and '.join(algorithm.declared.arrays)}",
            hint="Choose another --strategy, or --privacy record.",
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


def _exact(value: float) -> Decimal:
    return Decimal(repr(value))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return repr(value) if isinstance(value, float) else value  # canonical JSON knows no infinity
