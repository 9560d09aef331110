"""What a session of kind ``stage`` opens with: which stage of which plan, where it starts, and how much it may ask for.

Deterministic CBOR; fractions travel as their shortest decimals. Everything here is public.
"""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from privacy.errors import RemoteProtocolError
from privacy.secagg.encoding import dumps, is_site_id, loads

KIND = "stage"
MOST_BYTES = 2**20
CHAIN_BYTES = 16

_MOST_STEPS = 1_000_000
_MOST_SEED = 2**32 - 1
_MOST_WEIGHT = 2**31 - 1
_MOST_GRANT = 2**17


class End(StrEnum):
    """Which neighbour a session connects a stage with."""

    BEFORE = "before"
    """The stage before it."""
    HOME = "home"
    """The owner, of a last stage that is not also the owner's first neighbour."""


@dataclass(frozen=True)
class StageRequest:
    """The body of an opening.

    Attributes:
      plan: As `strategies.chain_plan.ChainPlan.encode` gives it.
      place: Number of the stage in `strategies.chain_plan.ChainPlan.held`, from 0.
      chain: 16 random bytes of the owner's that all sessions of one chain share.
      learning_rate: 0 where nothing is trained, or the piece is to stand still.
      steps: Most steps, or queries, that will follow.
      seed: Of the initial parameters, where they come from a study.
      run: Whose held piece is meant; empty: the initial parameters, and nothing is kept.
      round: To train in; 0: the piece as the run left it.
      attempt: Of the round, from 1.
      weight: Of the owner's copy among those of its round; public, as the weights in sums are.
      grant: Signed paper that the plan is allowed by; empty: the charter names the plan.
      patience: Seconds that whoever opens waits for an answer.
    """

    plan: bytes
    place: int
    end: End
    chain: bytes
    learning_rate: float = 0.0
    steps: int = _MOST_STEPS
    seed: int = 0
    run: str = ""
    round: int = 0
    attempt: int = 1
    weight: int = 1
    grant: bytes = b""
    patience: float = 10.0

    def __post_init__(self) -> None:
        """Refuses what no stage takes. Raises: RemoteProtocolError: It is out of bounds."""
        for name, (low, high) in _BOUNDS.items():
            if not low <= getattr(self, name) <= high:
                raise RemoteProtocolError(f"a stage was asked for with {name} out of bounds")
        sound = len(self.chain) == CHAIN_BYTES and len(self.grant) <= _MOST_GRANT
        named = is_site_id(self.run) if self.run else not self.round
        if not (sound and named):
            raise RemoteProtocolError("a stage was asked for with a field that no stage takes")

    def encode(self) -> bytes:
        """Returns the bytes that travel."""
        body = asdict(self) | {"end": str(self.end)}
        return dumps(body | {name: repr(getattr(self, name)) for name in _FRACTIONS})


def read_request(data: bytes) -> StageRequest:
    """Reads the body of an opening from a stranger. Raises: RemoteProtocolError: It is none."""
    body = loads(data, limit=MOST_BYTES)
    if not isinstance(body, dict) or set(body) != set(_TYPES):
        raise RemoteProtocolError("an opening of a stage lacks a field, or has one too many")
    for name, kind in _TYPES.items():
        if type(body[name]) is not kind:
            raise RemoteProtocolError(f"an opening of a stage has no valid {name}")
    try:
        fractions: dict[str, Any] = {name: float(body[name]) for name in _FRACTIONS}
        return StageRequest(**body | fractions | {"end": End(body["end"])})
    except ValueError:
        raise RemoteProtocolError("an opening of a stage has a word where no such word is known") from None


_BOUNDS = {
    "place": (0, 63),
    "learning_rate": (0.0, 1e6),
    "steps": (1, _MOST_STEPS),
    "seed": (0, _MOST_SEED),
    "round": (0, 2**31 - 1),
    "attempt": (1, 2**31 - 1),
    "weight": (1, _MOST_WEIGHT),
    "patience": (0.1, 60.0),
}
_FRACTIONS = ("learning_rate", "patience")
_TYPES: dict[str, type] = {
    "plan": bytes, "place": int, "end": str, "chain": bytes, "learning_rate": str, "steps": int,
    "seed": int, "run": str, "round": int, "attempt": int, "weight": int, "grant": bytes, "patience": str,
}  # fmt: skip
