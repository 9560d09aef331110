"""The claim ``audit.one_shot``: canary sites in a copy of the run. An estimate of epsilon at the level of sites.

It bounds nothing: that the estimate lies below the formal value is no proof, and above it no violation.
"""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.attacks import one_shot
from privacy.audit.figures import epsilon_text, figure
from privacy.audit.measured import bounds, formal
from privacy.audit.statement import Statement
from privacy.dp.accounting import round_up

Cosines = npt.NDArray[np.float64]

ONE_SHOT = "audit.one_shot"
FEWEST = 100
"""Canary sites below which a law fitted to their cosines says little."""


def one_shot_claim(
    protected: Cosines, control: Cosines, *, dimension: int, epsilons: Sequence[dict[str, Any]], delta: Decimal
) -> dict[str, Any]:
    """Builds the claim.

    Args:
      protected: Of each canary's direction and all that the training changed, shape ``(k,)``; trained as the run was.
      control: The same with next to no noise.
      dimension: Parameters that the directions span.
      epsilons: ``Statement.epsilons`` of the run.
      delta: At which epsilon is estimated.

    Raises: ValueError: Cosines that do not vary.
    """
    return {
        "id": ONE_SHOT,
        "kind": "measured",
        "canaries": protected.size,
        "dimension": dimension,
        "delta": f"{delta:f}",
        "formal": _formal(epsilons, delta),
        **_law(protected, dimension, delta),
        "control": _law(control, dimension, delta),
    }


def problems(claim: dict[str, Any], report: Statement) -> Iterator[str]:
    """Yields what does not follow: estimates from the fitted laws, the formal value from the run's claims."""
    delta = Decimal(claim["delta"])
    if not 0 < delta < 1:
        yield f"delta {delta} is not between 0 and 1"
        return
    if claim["canaries"] < FEWEST:
        yield f"{claim['canaries']} canary sites are too few"
    if not bounds.same_bound(claim["formal"], _formal(report.epsilons, delta)):
        yield f"the formal value is {_formal(report.epsilons, delta)}, not {claim['formal']}"
    for law in (claim, claim["control"]):
        estimated = _estimate(float(law["mean"]), float(law["sd"]), claim["dimension"], delta)
        if not bounds.same_bound(law["estimate"], estimated):
            yield f"the estimate is {estimated} by its law, not {law['estimate']}"


def verdict(claim: dict[str, Any]) -> bounds.Verdict:
    """Returns inconclusive unless the canaries of the copy without noise stand out more; never a violation."""
    return bounds.judged(exceeded=False, fired=Decimal(claim["control"]["estimate"]) > Decimal(claim["estimate"]))


def summary(claim: dict[str, Any]) -> str:
    """Returns the line about a claim whose numbers follow."""
    return (
        f"an estimate, not a bound: {claim['canaries']} canary sites look like epsilon {claim['estimate']} where "
        f"{claim['formal'] or 'nothing'} is promised, without noise like {claim['control']['estimate']}"
    )


def _law(cosines: Cosines, dimension: int, delta: Decimal) -> dict[str, str]:
    mean, sd = figure(float(cosines.mean())), figure(float(cosines.std(ddof=1)))
    return {"mean": mean, "sd": sd, "estimate": _estimate(float(mean), float(sd), dimension, delta)}


def _estimate(mean: float, sd: float, dimension: int, delta: Decimal) -> str:
    return epsilon_text(one_shot.estimate(mean, sd, dimension, float(delta)))


def _formal(epsilons: Sequence[dict[str, Any]], delta: Decimal) -> str | None:
    promised = formal.of_sites(epsilons, delta)
    return None if promised is None else round_up(promised)
