"""Combinations of settings that are refused before anything is read, each with one line that says why."""

from typing import TYPE_CHECKING

from privacy.dp.combinations import protects_records, units_of
from privacy.dp.plan import Unit
from privacy.errors import ConfigError
from privacy.secagg.context import thresholds
from strategies.chain_job import check_chain
from strategies.secure_sum import summed

if TYPE_CHECKING:
    from strategies.job import Job


OWN_SCALING = "inputs are scaled by each site's own statistics, so one record moves the scaling of all others"
"""Why no record can be protected where inputs are not scaled by public constants."""


def unit_of(wanted: str, privacy: tuple[str, ...]) -> Unit:
    """Chooses whom noise in the sum protects: what is asked for, else what comes first under these settings.

    Raises: ConfigError: The settings do not go together, or not with that unit.
    """
    units = units_of(privacy)
    if wanted and "distributed" not in privacy:
        raise ConfigError(
            "--set unit goes with --privacy distributed", hint="record and site have their unit in the name."
        )
    if wanted not in ("", "record", "site"):
        raise ConfigError(f"--set unit is record or site, not {wanted}")
    unit = Unit(wanted) if wanted else units[0]
    if unit not in units:
        raise ConfigError("--privacy record with distributed protects records twice", hint="Add --set unit=site.")
    return unit


def check_privacy(job: "Job", *, refused: str) -> None:
    """Refuses what masks or a privacy setting do not cover.

    Args:
      job: As a person asked for it, or as an invitation has it.
      refused: Why no record can be protected here; empty: it can.

    Raises: ConfigError: Named after what stands in the way.
    """
    algorithm, privacy = job.algorithm, job.privacy
    if job.unit not in units_of(privacy):
        raise ConfigError(f"--privacy {' with '.join(privacy) or 'none'} by {job.unit} is not offered")
    if job.secagg and not algorithm.is_sum:
        raise ConfigError(
            f"{algorithm.name} needs single updates: it does not pair with secure aggregation",
            hint="Add --no-secagg.",
        )
    if refused and protects_records(privacy, job.unit):
        raise ConfigError(
            f"--privacy {privacy[0]} is refused here: {refused}",
            hint="Run it with --privacy none, or take another scenario.",
        )
    in_sum = [name for name in privacy if name != "record"]
    if in_sum and not job.secagg:
        raise ConfigError(
            f"--privacy {in_sum[0]} adds noise to a masked sum: it needs secure aggregation", hint="Drop --no-secagg."
        )
    if in_sum and algorithm.declared.arrays != ("update",):
        raise ConfigError(
            f"--privacy {in_sum[0]} covers one update a round, and {algorithm.name} sends"
            f" {' and '.join(algorithm.declared.arrays)}",
            hint="Choose another --strategy, or --privacy record.",
        )


def check_plan(job: "Job") -> None:
    """Refuses training, parts or a chain that the rest of a job cannot serve.

    Raises:
      ConfigError: Named after what stands in the way.
      PrivacyError: Something would cross to another organisation that the study does not release.
    """
    _check_corrections(job)
    _check_sum_of_records(job)
    check_chain(job)
    if job.plan.is_whole:
        return
    if not job.secagg:
        raise ConfigError("sub-models are summed under masks only", hint="Drop --no-secagg.")
    if not job.algorithm.rests:
        raise ConfigError(
            f"{job.strategy} moves parts of a model that nobody trained in a round: it does not pair with sub-models",
            hint="Choose --strategy fedavg or fedprox.",
        )
    if _sums_records(job):
        raise ConfigError(
            "--privacy distributed sums records of the whole model: sub-models take it by site",
            hint="Add --set unit=site.",
        )
    floor = thresholds(len(job.sites)).min_cover
    if not summed(job.plan, job.sites, floor):
        raise ConfigError(
            f"no part of the model is held by {floor} sites: nothing could be summed",
            hint="Let more sites hold the same part.",
        )


def _sums_records(job: "Job") -> bool:
    return "distributed" in job.privacy and job.unit is not Unit.SITE


def _check_corrections(job: "Job") -> None:
    """Refuses steps that an algorithm would take for gradients of the size of the learning rate."""
    for site in job.sites if job.algorithm.local.control else ():
        optimizer = job.agent_of(site).training(job.task.training).optimizer
        if optimizer != "sgd":
            raise ConfigError(
                f"{job.strategy} takes the way that a site went for its gradients, and {site} trains with {optimizer}",
                hint="Choose the optimizer sgd for every site, or --strategy fedavg.",
            )


def _check_sum_of_records(job: "Job") -> None:
    """Refuses training settings that nobody would follow where the sum over all records is the step."""
    if not _sums_records(job):
        return
    common = job.task.training
    if (common.local_steps, common.batch) != (1, 0):
        raise ConfigError(
            "--privacy distributed sums records, which is one step a round over all of them",
            hint="Add --set local_steps=1 --set batch=0, or --set unit=site.",
        )
    if common.optimizer != "sgd":
        raise ConfigError(
            f"--privacy distributed sums records, and their sum is the step: it takes sgd, not {common.optimizer}",
            hint="Choose the optimizer sgd, or add --set unit=site.",
        )
    for site in job.sites:
        if job.agent_of(site).training(common) != common:
            raise ConfigError(
                f"--privacy distributed sums records for one common step: {site} cannot train by settings of its own",
                hint=f"Remove them from [agents.{site}], or add --set unit=site.",
            )
