"""Combinations of settings that are refused before anything is read, each with one line that says why."""

from typing import TYPE_CHECKING, Any

from privacy.dp.plan import Unit
from privacy.errors import ConfigError
from privacy.secagg.context import thresholds
from strategies.algorithm import Algorithm
from strategies.chain_job import check_chain
from strategies.secure_sum import summed
from strategies.task import Training

if TYPE_CHECKING:
    from strategies.job import Job


OWN_SCALING = "inputs are scaled by each site's own statistics, so one record moves the scaling of all others"
"""Why no record can be protected where inputs are not scaled by public constants."""


def unit_of(wanted: str, privacy: tuple[str, ...], training: Training) -> Unit:
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


def check_privacy(
    algorithm: Algorithm[Any], privacy: tuple[str, ...], unit: Unit, *, secagg: bool, refused: str
) -> None:
    """Refuses what masks or a privacy setting do not cover; ``refused`` says why no record can be protected here."""
    if secagg and not algorithm.is_sum:
        raise ConfigError(
            f"{algorithm.name} needs single updates: it does not pair with secure aggregation",
            hint="Add --no-secagg.",
        )
    if privacy and unit is Unit.RECORD and refused:
        raise ConfigError(
            f"--privacy {privacy[0]} is refused here: {refused}",
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


def check_plan(job: "Job") -> None:
    """Refuses parts, or a chain, that the rest of a job cannot serve.

    Raises:
      ConfigError: Named after what stands in the way.
      PrivacyError: Something would cross to another organisation that the study does not release.
    """
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
    if "distributed" in job.privacy and job.unit is not Unit.SITE:
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
