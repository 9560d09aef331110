"""What a verifier says about one claim."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["proved", "attested", "measured", "asserted"]
Answer = Literal["holds", "fails", "unchecked"]


@dataclass(frozen=True)
class CheckedClaim:
    """One claim and what became of it; ``why`` is one plain line. All fields are public."""

    id: str
    kind: Kind
    verdict: Answer
    why: str
