"""Which privacy settings go together, whom they protect, and what a site pays for under them: one table.

The simulation, the coordinator and every site look it up here, whatever an invitation says; so does whoever fixes
budgets for ever.
"""

from collections.abc import Mapping
from types import MappingProxyType

from privacy.dp.plan import Unit
from privacy.errors import ConfigError

COMBINATIONS: Mapping[tuple[str, ...], tuple[Unit, ...]] = MappingProxyType(
    {
        (): (Unit.RECORD,),
        ("record",): (Unit.RECORD,),
        ("site",): (Unit.SITE,),
        ("distributed",): (Unit.RECORD, Unit.SITE),
        ("record", "distributed"): (Unit.SITE,),
    }
)
"""Every combination on offer, and what the unit of the sum can be under it; the first one unless another is asked for.

A patient is the unit in the place of a record where a study tells patients apart.
"""


def units_of(privacy: tuple[str, ...]) -> tuple[Unit, ...]:
    """Returns what the unit of the sum can be. Raises: ConfigError: The settings do not go together."""
    if privacy not in COMBINATIONS:
        every = "; ".join(" with ".join(names) or "none" for names in COMBINATIONS)
        raise ConfigError(f"--privacy {' --privacy '.join(privacy)} is not offered", hint=f"There are: {every}.")
    return COMBINATIONS[privacy]


def protects_records(privacy: tuple[str, ...], unit: Unit) -> bool:
    """Whether anything is promised for single records, beside what may be promised for sites."""
    return "record" in privacy or ("distributed" in privacy and unit is not Unit.SITE)


def payable(*, patients: bool) -> tuple[tuple[str, ...], ...]:
    """Returns the claims that a site pays for together in one run, for every combination under which it pays at all.

    Args:
      patients: Whether the study tells patients apart.
    """
    person = Unit.PATIENT if patients else Unit.RECORD
    found = []
    for privacy, units in COMBINATIONS.items():
        for unit in units:
            local = (str(person),) if "record" in privacy else ()
            shared = (f"{Unit.SITE if unit is Unit.SITE else person}-distributed",) if "distributed" in privacy else ()
            found.append((*local, *shared))
    return tuple(claims for claims in found if claims)
