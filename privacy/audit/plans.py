"""The privacy plan behind a claim: clip, noise, sampling and number of releases, read back from a report.

For an auditor, who tests the release path that a run used without being one of its parties.
"""

from decimal import Decimal
from typing import Any

from privacy.audit.pricing import events_of, per_attempt, planned
from privacy.dp.events import Arithmetic, GaussianEvent, SkellamEvent
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.dp.skellam import DistributedNoise
from privacy.errors import UnsupportedEventError

_PLACES = Decimal("0.0001")  # a distributed plan's noise multiplier is a multiple of it


def weakest(claim: dict[str, Any]) -> dict[str, Any]:
    """Returns the entry of the holder for whom a claim of differential privacy promises least."""
    held: dict[str, Any] = max(claim["sites"], key=lambda entry: Decimal(entry["planned_epsilon"]))
    return held


def plan_of(claim: dict[str, Any], parameters: int) -> PrivacyPlan:
    """Returns the plan of a claim's weakest holder.

    Args:
      claim: One of ``Statement.epsilons``; checked, not believed blindly: its events must be of one mechanism.
      parameters: Entries of the whole model.

    Raises: UnsupportedEventError: No single plan stands behind the listed events.
    """
    entry = weakest(claim)
    events = events_of(entry)
    common: dict[str, Any] = {
        "clip": Decimal(entry["clip"]),
        "steps_per_attempt": per_attempt(claim, entry),
        "max_attempts": planned(claim, entry) // per_attempt(claim, entry),
        "target": Decimal(claim["target_epsilon"]),
        "delta": Decimal(claim["delta"]),
    }
    match events:
        case (GaussianEvent() as event,) if claim["placement"] == "local":
            return RecordPlan(
                unit=Unit(claim["unit"]),
                noise_multiplier=event.noise_multiplier,
                sampling=event.sampling,
                n_records=entry["n_train"],
                arithmetic=event.arithmetic,
                **common,
            )
        case (GaussianEvent(arithmetic=Arithmetic.INTEGER_EXACT) as event,) if claim["placement"] == "central":
            return SitePlan(unit=Unit.SITE, noise_multiplier=event.noise_multiplier, **common)
        case (SkellamEvent() as event,) if claim["placement"] == "distributed":
            return _distributed(claim, event, parameters, common)
    raise UnsupportedEventError(f"no single plan stands behind the events of {entry['site']}")


def _distributed(
    claim: dict[str, Any], event: SkellamEvent, parameters: int, common: dict[str, Any]
) -> DistributedPlan:
    multiplier = (event.variance.sqrt() / event.l2).quantize(_PLACES)
    counted = next(row["shares"] for row in claim["hypothetical"] if row["counted"])
    return DistributedPlan(
        unit=Unit(claim["unit"]),
        noise_multiplier=multiplier,
        noise=DistributedNoise(common["clip"], multiplier, counted, parameters),
        colluders=0,
        **common,
    )
