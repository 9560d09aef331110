"""The claim ``audit.black_box``: mislabelled canaries in copies of the training, scored by the finished model.

The attacker sees the model and the canaries, and nothing of the training. One copy is trained as the run was; the
control is trained without protection until it remembers, and has to be found out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.attacks import canaries, one_run
from privacy.audit import canary_file
from privacy.audit.measured import bounds, canary_claims, formal
from privacy.audit.measured.canary_claims import Evidence
from privacy.audit.statement import Statement
from privacy.dp.accounting import round_up

BLACK_BOX = "audit.black_box"

_PROTECTED, _CONTROL = "black_box/protected", "black_box/control"


@dataclass(frozen=True)
class Scored:
    """What one model says of the canaries; public once the audit is over.

    Attributes:
      model: One line about what was trained, and how.
      scores: Shape ``(m,)``, finite; high means "in".
    """

    model: str
    scores: npt.NDArray[np.float64]


def black_box_claim(
    protected: Scored, control: Scored, *, records: int, epsilons: Sequence[dict[str, Any]], seed: bytes
) -> Evidence:
    """Builds the claim.

    Args:
      protected: Trained as the run was.
      control: Trained without protection.
      records: Real records that both were trained on, besides the canaries.
      epsilons: ``Statement.epsilons`` of the run.
      seed: What was committed to before; opened by this.

    Raises: ValueError: Scores that are no numbers, or too few canaries.
    """
    m = protected.scores.size
    included = canaries.included(seed, m)
    lines = canary_file.line(BLACK_BOX, _PROTECTED, protected.scores)
    lines += canary_file.line(BLACK_BOX, _CONTROL, control.scores)
    claim = {
        **canary_claims.head(BLACK_BOX, seed, m, lines),
        "records": records,
        "formal": _formal(epsilons),
        "ceiling": bounds.ceiling_json(m),
        "protected": _model_json(protected, included),
        "control": _model_json(control, included),
    }
    return Evidence({**claim, "verdict": verdict(claim)}, lines)


def problems(claim: dict[str, Any], report: Statement, lines: bytes | None) -> Iterator[str]:
    """Yields what does not follow: bounds from counts, counts from scores if those are at hand, coins from the seed.

    Raises: FederationError: Nothing can follow from such numbers.
    """
    m, included = claim["canaries"], canary_claims.coins(claim)
    yield from canary_claims.misopened(claim)
    if not bounds.same_bound(claim["formal"], _formal(report.epsilons)):
        yield f"the formal value is {_formal(report.epsilons)}, not {claim['formal']}"
    if not bounds.same_bounds(claim["ceiling"], bounds.ceiling_json(m)):
        yield f"{m} canaries cannot show what is said"
    for name in ("protected", "control"):
        yield from bounds.miscounted(m, claim[name]["guesses"])
        if not bounds.same_bounds(claim[name]["lower"], bounds.counted(m, claim[name]["guesses"])):
            yield f"the bounds of the {name} model are not what its right guesses give"
    if claim["verdict"] != verdict(claim):
        yield f"the verdict is '{verdict(claim)}' by the bounds, not '{claim['verdict']}'"
    if lines is not None:
        scores = canary_claims.scores_at_hand(claim, lines, {_PROTECTED, _CONTROL})
        for name, what in (("protected", _PROTECTED), ("control", _CONTROL)):
            if bounds.guesses_json(one_run.tally(scores[what], included)) != claim[name]["guesses"]:
                yield f"the right guesses of the {name} model are not those that the scores give"


def verdict(claim: dict[str, Any]) -> bounds.Verdict:
    """Returns the verdict; where nothing is promised nothing can be exceeded, and the control has to beat a coin."""
    promised = claim["formal"]
    return bounds.judged(
        exceeded=promised is not None and _exceeds(claim["protected"], promised),
        fired=_exceeds(claim["control"], promised or "0"),
    )


def summary(claim: dict[str, Any]) -> str:
    """Returns the line about a claim whose numbers follow."""
    protected, control = claim["protected"]["lower"], claim["control"]["lower"]
    text = (
        f"{claim['canaries']} mislabelled canaries among {claim['records']} records show an epsilon of at least "
        f"{protected['steinke']} (Steinke) and {protected['fdp']} (f-DP), promised is {claim['formal'] or 'nothing'}; "
        f"of a model trained without protection {control['steinke']} and {control['fdp']}"
    )
    if claim["formal"] is not None and bounds.powerless(claim["ceiling"], claim["formal"]):
        text += "; no power: the formal value could not be exceeded even if all guesses were right"
    return text


def _model_json(model: Scored, included: npt.NDArray[np.bool_]) -> dict[str, Any]:
    guesses = bounds.guesses_json(one_run.tally(canary_file.rounded(model.scores), included))
    return {"model": model.model, "guesses": guesses, "lower": bounds.counted(included.size, guesses)}


def _formal(epsilons: Sequence[dict[str, Any]]) -> str | None:
    promised = formal.of_model(epsilons, bounds.DELTA)
    return None if promised is None else round_up(promised)


def _exceeds(model: dict[str, Any], promised: str) -> bool:
    return any(Decimal(bound) > Decimal(promised) for bound in model["lower"].values())
