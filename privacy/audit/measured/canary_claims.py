"""What the claims that rest on canaries have in common: terms, coins from a seed that was committed to, and scores."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.attacks import canaries
from privacy.audit import canary_file
from privacy.audit.measured import bounds
from privacy.errors import VerificationError

FEWEST = 50
"""Canaries below which the strategies that guess for few of them would not guess at all."""


@dataclass(frozen=True)
class Evidence:
    """A claim for the report, and its lines of ``canary_file``; public once the audit is over."""

    claim: dict[str, Any]
    lines: bytes


def head(claim_id: str, seed: bytes, m: int, lines: bytes) -> dict[str, Any]:
    """Returns the fields that such claims begin with.

    Raises: ValueError: The number of canaries is not one that an audit can use.
    """
    if not FEWEST <= m <= canary_file.MAX_SCORES:
        raise ValueError(f"an audit takes {FEWEST} to {canary_file.MAX_SCORES} canaries, not {m}")
    return {
        "id": claim_id,
        "kind": "measured",
        "delta": f"{bounds.DELTA:f}",
        "alpha": str(bounds.ALPHA),
        "canaries": m,
        "commitment": canaries.commitment(seed),
        "seed": seed.hex(),
        "scores_sha256": canary_file.digest(lines),
    }


def coins(claim: dict[str, Any]) -> npt.NDArray[np.bool_]:
    """Returns which canaries were in, by the claim's seed; shape ``(m,)``.

    Raises: VerificationError: So many or few canaries make no audit.
    """
    m = claim["canaries"]
    if not FEWEST <= m <= canary_file.MAX_SCORES:
        raise VerificationError(f"{m} canaries are too few or too many for an audit")
    return canaries.included(bytes.fromhex(claim["seed"]), m)


def misopened(claim: dict[str, Any]) -> Iterator[str]:
    """Yields how a claim departs from the terms that audits are made on, or from its commitment."""
    if (Decimal(claim["delta"]), Decimal(claim["alpha"])) != (bounds.DELTA, bounds.ALPHA):
        yield f"audits are made at delta {bounds.DELTA:f} and alpha {bounds.ALPHA}, and this one is not"
    if not canaries.opens(claim["commitment"], bytes.fromhex(claim["seed"])):
        yield "the seed is not the one that was committed to"


def scores_at_hand(claim: dict[str, Any], lines: bytes, names: Collection[str]) -> dict[str, canary_file.Scores]:
    """Returns the scores that a claim rests on, by what was measured.

    Args:
      claim: Says their digest and number.
      lines: The claim's own lines of the file at hand. Untrusted.
      names: What the claim says was measured.

    Raises:
      VerificationError: They are others.
      ConfigError: They are no scores.
    """
    if canary_file.digest(lines) != claim["scores_sha256"]:
        raise VerificationError("the canaries' scores at hand are not those that were signed")
    scores = canary_file.scores_of(lines)
    if scores.keys() != set(names) or any(one.size != claim["canaries"] for one in scores.values()):
        raise VerificationError("the canaries' scores are not of what is said to have been measured")
    return scores
