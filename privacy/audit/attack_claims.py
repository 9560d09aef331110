"""Claims that attacks support: made from what they showed, and checked again from the numbers that the claims list.

Of scores outside the report (``canary_file``) a claim holds the digest. Without them its counts stay unchecked; with
them every count, and the bounds that follow, are computed again, with the coins that the opened seed gives.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from privacy.audit import canary_file
from privacy.audit.answers import Answer, CheckedClaim
from privacy.audit.measured import black_box, inversion, membership, one_run, one_shot
from privacy.audit.measured.black_box import Scored, black_box_claim
from privacy.audit.measured.bounds import Verdict
from privacy.audit.measured.canary_claims import Evidence
from privacy.audit.measured.inversion import inversion_claim
from privacy.audit.measured.membership import Compared, membership_claim
from privacy.audit.measured.one_run import DEFECTS, Defect, Measurement, PathAudit, one_run_claim
from privacy.audit.measured.one_shot import one_shot_claim
from privacy.audit.statement import Statement
from privacy.errors import FederationError

__all__ = [
    "DEFECTS",
    "Compared",
    "Defect",
    "Evidence",
    "Measurement",
    "PathAudit",
    "Scored",
    "black_box_claim",
    "check",
    "inversion_claim",
    "membership_claim",
    "one_run_claim",
    "one_shot_claim",
]


@dataclass(frozen=True)
class _Judge:
    problems: Callable[[dict[str, Any], Statement, bytes | None], Iterable[str]]
    verdict: Callable[[dict[str, Any]], Verdict]
    summary: Callable[[dict[str, Any]], str]


def _alone(problems: Callable[[dict[str, Any], Statement], Iterable[str]]) -> Callable[..., Iterable[str]]:
    """Adapts the check of a claim that holds all it rests on."""
    return lambda claim, report, _lines: problems(claim, report)


_JUDGES = {
    one_run.ONE_RUN: _Judge(one_run.problems, one_run.verdict, one_run.summary),
    black_box.BLACK_BOX: _Judge(black_box.problems, black_box.verdict, black_box.summary),
    membership.MEMBERSHIP: _Judge(_alone(membership.problems), membership.verdict, membership.summary),
    one_shot.ONE_SHOT: _Judge(_alone(one_shot.problems), one_shot.verdict, one_shot.summary),
    inversion.INVERSION: _Judge(_alone(inversion.problems), inversion.verdict, inversion.summary),
}


def check(report: Statement, canaries: bytes | None) -> list[CheckedClaim]:
    """Checks every claim that attacks support.

    Args:
      report: Fits its schema.
      canaries: ``canary_file.CANARIES_FILE`` at hand, if there is one. Untrusted.

    Returns: One line a claim that the report makes. It fails if a number does not follow, or a bound exceeds the formal
      value; it stays unchecked if a control was not found out, or scores are not at hand.
    """
    made = [claim for claim in report.predicate["claims"] if claim["id"] in _JUDGES]
    return [_checked(claim, report, canaries) for claim in made]


def _checked(claim: dict[str, Any], report: Statement, canaries: bytes | None) -> CheckedClaim:
    judge = _JUDGES[claim["id"]]
    try:
        lines = None if canaries is None else canary_file.decode(canaries).get(claim["id"], b"")
        problem = next(iter(judge.problems(claim, report, lines)), None)
        answer, why = _judged(claim, judge) if problem is None else ("fails", problem)
    except FederationError as error:
        answer, why = "fails", str(error)
    except (ArithmeticError, ValueError) as error:
        answer, why = "fails", f"nothing can be computed from its numbers: {str(error)[:80]}"
    if answer == "holds" and canaries is None and "scores_sha256" in claim:
        answer, why = "unchecked", f"no {canary_file.CANARIES_FILE} at hand to count in; {why}"
    return CheckedClaim(claim["id"], "measured", answer, why)


def _judged(claim: dict[str, Any], judge: _Judge) -> tuple[Answer, str]:
    match judge.verdict(claim):
        case "violation":
            return "fails", f"measured above the formal value: {judge.summary(claim)}"
        case "inconclusive":
            return "unchecked", f"inconclusive, since a control was not found out: {judge.summary(claim)}"
        case "no violation":
            return "holds", judge.summary(claim)
