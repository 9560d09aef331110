"""Members whose auditor lies: an honest one-run audit, altered before a trusted key signs it."""

from decimal import Decimal

import numpy as np

from privacy.audit import canary_file
from privacy.audit.attack_claims import Evidence
from privacy.audit.measured.one_run import ONE_RUN
from simulations.red.member import BentAudit


def _scores_edited(found: Evidence) -> Evidence:
    """Every score of the correct path is replaced, and the digest made to fit."""
    scores = canary_file.scores_of(found.lines)
    blind = {what: np.zeros_like(one) if what.endswith("/correct") else one for what, one in scores.items()}
    lines = b"".join(canary_file.line(ONE_RUN, what, one) for what, one in blind.items())
    return Evidence({**found.claim, "scores_sha256": canary_file.digest(lines)}, lines)


def _bound_lowered(found: Evidence) -> Evidence:
    found.claim["paths"][0]["measurement"]["lower"]["steinke"] = "0.0000"
    return found


def _formal_raised(found: Evidence) -> Evidence:
    path = found.claim["paths"][0]
    path["formal"] = str(Decimal(path["formal"]) + 1)
    return found


def _other_seed(found: Evidence) -> Evidence:
    found.claim["seed"] = "00" * 32
    return found


def _control_left_out(found: Evidence) -> Evidence:
    found.claim["paths"][0]["controls"].pop()
    return found


MEMBERS: tuple[BentAudit, ...] = (
    BentAudit("canary scores edited", "scores that show nothing, signed with their digest", _scores_edited),
    BentAudit("bound lowered", "a lower bound of 0 where the counts give more", _bound_lowered),
    BentAudit("formal value raised", "bounds are held against a larger epsilon", _formal_raised),
    BentAudit("coins chosen afterwards", "another seed than was committed to", _other_seed),
    BentAudit("control left out", "one broken copy was not measured", _control_left_out),
)
