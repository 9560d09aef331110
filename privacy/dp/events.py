"""What a release costs, said as data: epsilon is always computed from events, never stored as an input.

The meaning of an existing event must not change; a new mechanism gets a new class (dp_accounting's promise, kept here).
Numbers are exact decimals, so that what a ledger holds and what a verifier prices are the same number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any

from privacy.errors import UnsupportedEventError


class Relation(StrEnum):
    """What two neighbouring data sets differ by.

    ``REPLACE_SPECIAL``: one record becomes a special one that contributes zero; the number of records is public
    (zero-out; noise and accounting as for add/remove). ``REPLACE_ONE``: one record becomes any other.
    ``ADD_OR_REMOVE_ONE``: one record more or less; the number of records is then secret.
    """

    REPLACE_SPECIAL = "replace_special"
    REPLACE_ONE = "replace_one"
    ADD_OR_REMOVE_ONE = "add_or_remove_one"


class SamplingType(StrEnum):
    """How the records of one step are chosen: all of them, or each by its own coin."""

    FULL = "full"
    POISSON = "poisson"


@dataclass(frozen=True)
class Sampling:
    """How records enter a step; both fields are public.

    Attributes:
      rate: Probability that a record enters, 0 < rate <= 1; 1 exactly when ``type`` is full.
    """

    type: SamplingType
    rate: Decimal

    def __post_init__(self) -> None:
        if not (self.rate.is_finite() and 0 < self.rate <= 1):
            raise UnsupportedEventError(f"sampling rate {self.rate} is not in (0, 1]")
        if (self.type is SamplingType.FULL) != (self.rate == 1):
            raise UnsupportedEventError("full batches have rate 1, Poisson batches a rate below 1")


FULL_BATCH = Sampling(SamplingType.FULL, Decimal(1))


@dataclass(frozen=True)
class GaussianEvent:
    """``count`` sums of vectors of norm at most C, each plus noise of standard deviation ``noise_multiplier`` * C.

    Rounding the noisy sum to a public grid, as the mechanism does, is post-processing and leaves the event unchanged
    (privacy-audit corrections, 4).
    """

    noise_multiplier: Decimal
    sampling: Sampling
    count: int

    def __post_init__(self) -> None:
        if not (self.noise_multiplier.is_finite() and self.noise_multiplier > 0):
            raise UnsupportedEventError(f"noise multiplier {self.noise_multiplier} is not a positive number")
        if self.count < 1:
            raise UnsupportedEventError(f"an event happens at least once, not {self.count} times")

    def times(self, count: int) -> "GaussianEvent":
        """Returns the same mechanism executed ``count`` times."""
        return replace(self, count=count)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that ledgers and reports hold: decimals as strings."""
        return {
            "mechanism": "gaussian",
            "noise_multiplier": f"{self.noise_multiplier:f}",
            "sampling": {"type": str(self.sampling.type), "rate": f"{self.sampling.rate:f}"},
            "count": self.count,
        }

    @classmethod
    def from_json(cls, data: object) -> "GaussianEvent":
        """Reads an event from untrusted JSON.

        Raises:
          UnsupportedEventError: Anything but exactly the form that ``to_json`` writes: unknown means unpriced.
        """
        body = _exact(data, {"mechanism", "noise_multiplier", "sampling", "count"})
        if body["mechanism"] != "gaussian":
            raise UnsupportedEventError(f"no price is known for the mechanism {str(body['mechanism'])[:40]!r}")
        sampling = _exact(body["sampling"], {"type", "rate"})
        if sampling["type"] not in tuple(SamplingType):
            raise UnsupportedEventError(f"no price is known for the sampling {str(sampling['type'])[:40]!r}")
        count = body["count"]
        if type(count) is not int or count > 10**9:
            raise UnsupportedEventError("an event's count is a whole number below 10^9")
        return cls(
            noise_multiplier=decimal(body["noise_multiplier"]),
            sampling=Sampling(SamplingType(sampling["type"]), decimal(sampling["rate"])),
            count=count,
        )


def decimal(text: object) -> Decimal:
    """Reads an exact decimal from a short string, the only form in which signed numbers are accepted.

    Raises:
      UnsupportedEventError: Not a string, too long, or not a finite number.
    """
    if not isinstance(text, str) or len(text) > 40:
        raise UnsupportedEventError("numbers in events are decimal strings")
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise UnsupportedEventError(f"{text!r} is not a decimal number") from None
    if not value.is_finite() or abs(value.adjusted()) > 20:
        raise UnsupportedEventError(f"{text!r} is out of range")
    return value


def merged(events: Sequence[GaussianEvent]) -> tuple[GaussianEvent, ...]:
    """Adds up the counts of equal mechanisms, in order of first appearance; composition does not change."""
    counts: dict[GaussianEvent, int] = {}
    for event in events:
        key = event.times(1)
        counts[key] = counts.get(key, 0) + event.count
    return tuple(key.times(count) for key, count in counts.items())


def _exact(data: object, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or set(data) != keys:
        raise UnsupportedEventError(f"an event has exactly the fields {', '.join(sorted(keys))}")
    return data
