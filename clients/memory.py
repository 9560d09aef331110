"""What a site remembers between the messages of a run, in the state that Flower keeps for it or its own folder does."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from privacy.errors import RemoteProtocolError
from strategies.contribution import Vector

_STATE = "collegium-site"
_INVITED = "collegium-invitation"
_LEFT = "collegium-left"


def invitation_in(state: RecordDict) -> bytes:
    """Returns the invitation that was let pass in this run. Raises: RemoteProtocolError: There was none."""
    record = state.get(_INVITED)
    data = record.get(_INVITED) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise RemoteProtocolError("this site was not invited, or did not accept", phase="train")
    return data


def keep_invitation(state: RecordDict, data: bytes) -> None:
    """Remembers the invitation that was let pass; what was remembered of another run is not this one's."""
    known = state.get(_INVITED)
    if isinstance(known, ConfigRecord) and known.get(_INVITED) != data:
        state.pop(_STATE, None)
        state.pop(_LEFT, None)
    state[_INVITED] = ConfigRecord({_INVITED: data})


@dataclass(frozen=True)
class Left:
    """What left a site in the rounds of a run, by its own count.

    Attributes:
      messages: Answers, refusals included.
      bytes: Of them; a refusal has none.
    """

    messages: int = 0
    bytes: int = 0

    @classmethod
    def read(cls, state: RecordDict) -> "Left":
        """Reads it back; a site that remembers nothing has sent nothing."""
        record = state.get(_LEFT)
        return cls(_int(record, "messages"), _int(record, "bytes")) if isinstance(record, ConfigRecord) else cls()

    def write(self, state: RecordDict) -> None:
        """Writes it down in the state."""
        state[_LEFT] = ConfigRecord({"messages": self.messages, "bytes": self.bytes})


@dataclass(frozen=True)
class Memory:
    """What a site remembers between rounds. ``pending`` becomes ``kept`` once the server says it was summed.

    A contribution that got lost must not move c_i: the server's c would no longer be the mean of the sites' c_i
    (Karimireddy et al. 2020, Algorithm 1), and state of an attempt that counted nowhere is discarded whole.

    Attributes:
      kept: ``control`` of Scaffold, ``private`` parameters; empty at first.
    """

    last: tuple[int, int] = (0, 0)
    kept: Mapping[str, Vector] = field(default_factory=dict)
    pending: Mapping[str, Vector] = field(default_factory=dict)

    @classmethod
    def read(cls, state: RecordDict) -> "Memory":
        """Reads it back; a site that remembers nothing starts afresh."""
        record = state.get(_STATE)
        if not isinstance(record, ConfigRecord):
            return cls()
        last = (_int(record, "round"), _int(record, "attempt"))
        return cls(last, _vectors(record, "kept."), _vectors(record, "pending."))

    def kept_for(self, accepted: tuple[int, int]) -> Mapping[str, Vector]:
        """Returns what counts, given the last attempt of this site that entered a sum."""
        return self.pending if accepted == self.last and self.pending else self.kept

    def write(self, state: RecordDict) -> None:
        """Writes it down in the state."""
        round_number, attempt_number = self.last
        vectors = {f"kept.{name}": vector for name, vector in self.kept.items()}
        vectors |= {f"pending.{name}": vector for name, vector in self.pending.items()}
        packed = {name: vector.tobytes() for name, vector in vectors.items()}
        state[_STATE] = ConfigRecord({"round": round_number, "attempt": attempt_number, **packed})


def _int(record: Mapping[str, object], name: str) -> int:
    value = record[name]
    return value if isinstance(value, int) else 0


def _vectors(record: Mapping[str, object], prefix: str) -> dict[str, Vector]:
    return {
        name.removeprefix(prefix): np.frombuffer(data, dtype=np.float32)
        for name, data in record.items()
        if name.startswith(prefix) and isinstance(data, bytes)
    }
