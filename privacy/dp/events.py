"""What a release costs, said as data: epsilon is always computed from events, never stored as an input.

The meaning of an existing event must not change; a new mechanism gets a new class (dp_accounting's promise, kept here).
Numbers are exact decimals, so that what a ledger holds and what a verifier prices are the same number. A field that an
event's JSON leaves out has its default, so events written before the field existed keep their meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Any, TypeAlias, TypeVar

from privacy.errors import UnsupportedEventError


class Relation(StrEnum):
    """What two neighbouring data sets differ by.

    ``REPLACE_SPECIAL``: one record becomes a special one that contributes zero; the number of records is public
    (zero-out; noise and accounting as for add/remove). ``REPLACE_ONE``: one record becomes any other.
    ``ADD_OR_REMOVE_ONE``: one record more or less; the number of records is then secret.
    Where the unit is a site, zero-out is the relation: a site that is removed would take its noise along.
    """

    REPLACE_SPECIAL = "replace_special"
    REPLACE_ONE = "replace_one"
    ADD_OR_REMOVE_ONE = "add_or_remove_one"


class SamplingType(StrEnum):
    """How the records of one step are chosen.

    ``FULL``: all of them. ``POISSON``: each by its own coin. ``TRUNCATED``: each by its own coin, and where more than
    ``cap`` enter, a uniformly random ``cap`` of those stay.
    """

    FULL = "full"
    POISSON = "poisson"
    TRUNCATED = "truncated_poisson"


class Arithmetic(StrEnum):
    """How the noise was drawn: what a claim rests on, without effect on its price.

    ``FLOAT``: a 64-bit floating-point normal, rounded; the claim is asserted. ``INTEGER_EXACT``: integers with exactly
    the declared distribution.
    """

    FLOAT = "float64"
    INTEGER_EXACT = "integer_exact"


_MOST_EXECUTIONS = 10**9
_LARGEST_GROUP = 1000


@dataclass(frozen=True)
class Sampling:
    """How records enter a step; all fields are public.

    Attributes:
      rate: Probability that a record's coin says yes, 0 < rate <= 1; 1 exactly when ``type`` is full.
      cap: Most records in a truncated batch; None for the other types.
      n_records: Number of records that coins are tossed for, where batches are truncated; else None.
    """

    type: SamplingType
    rate: Decimal
    cap: int | None = None
    n_records: int | None = None

    def __post_init__(self) -> None:
        if not (self.rate.is_finite() and 0 < self.rate <= 1):
            raise UnsupportedEventError(f"sampling rate {self.rate} is not in (0, 1]")
        if (self.type is SamplingType.FULL) != (self.rate == 1):
            raise UnsupportedEventError("full batches have rate 1, Poisson batches a rate below 1")
        if self.type is not SamplingType.TRUNCATED:
            if (self.cap, self.n_records) != (None, None):
                raise UnsupportedEventError("only truncated batches have a cap and a number of records")
        elif self.cap is None or self.n_records is None or not 1 <= self.cap <= self.n_records <= _MOST_EXECUTIONS:
            raise UnsupportedEventError("truncated batches need 1 <= cap <= n_records")

    def to_json(self) -> dict[str, Any]:
        """Returns the form that events hold."""
        truncated = {} if self.cap is None else {"cap": self.cap, "n_records": self.n_records}
        return {"type": str(self.type), "rate": f"{self.rate:f}", **truncated}

    @classmethod
    def from_json(cls, data: object) -> "Sampling":
        """Reads exactly the form that ``to_json`` writes, or raises UnsupportedEventError."""
        body = _exact(data, {"type", "rate"}, {"cap", "n_records"})
        if body["type"] not in tuple(SamplingType):
            raise UnsupportedEventError(f"no price is known for the sampling {str(body['type'])[:40]!r}")
        bounds = {name: _whole(body[name], name) for name in ("cap", "n_records") if name in body}
        return cls(SamplingType(body["type"]), decimal(body["rate"]), **bounds)


FULL_BATCH = Sampling(SamplingType.FULL, Decimal(1))


@dataclass(frozen=True)
class GaussianEvent:
    """``count`` sums of vectors of norm at most C, each plus noise of standard deviation ``noise_multiplier`` * C.

    Rounding the noisy sum to a public grid, as the mechanism does, is post-processing and leaves the event unchanged
    (docs/privacy-rules.md, 4).

    Attributes:
      group: Most records of one person; neighbours then differ in that many records.
      arithmetic: How the noise was drawn.
    """

    noise_multiplier: Decimal
    sampling: Sampling
    count: int
    group: int = 1
    arithmetic: Arithmetic = Arithmetic.FLOAT

    def __post_init__(self) -> None:
        _check_positive(self.noise_multiplier, "noise multiplier")
        _check_count(self.count)
        if not 1 <= self.group <= _LARGEST_GROUP:
            raise UnsupportedEventError(f"a person has 1 to {_LARGEST_GROUP} records, not {self.group}")
        if self.group > 1 and self.sampling.type is SamplingType.TRUNCATED:
            raise UnsupportedEventError("no price is known for groups of records in truncated batches")

    def times(self, count: int) -> "GaussianEvent":
        """Returns the same mechanism executed ``count`` times."""
        return replace(self, count=count)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that ledgers and reports hold: decimals as strings, defaults left out."""
        group = {} if self.group == 1 else {"group": self.group}
        arithmetic = {} if self.arithmetic is Arithmetic.FLOAT else {"arithmetic": str(self.arithmetic)}
        return {
            "mechanism": "gaussian",
            "noise_multiplier": f"{self.noise_multiplier:f}",
            "sampling": self.sampling.to_json(),
            "count": self.count,
            **group,
            **arithmetic,
        }

    @classmethod
    def from_json(cls, data: object) -> "GaussianEvent":
        """Reads a Gaussian event from untrusted JSON.

        Raises:
          UnsupportedEventError: Anything but exactly the form that ``to_json`` writes: unknown means unpriced.
        """
        body = _exact(data, {"mechanism", "noise_multiplier", "sampling", "count"}, {"group", "arithmetic"})
        if body["mechanism"] != "gaussian":
            raise UnsupportedEventError(f"no price is known for the mechanism {str(body['mechanism'])[:40]!r}")
        arithmetic = body.get("arithmetic", Arithmetic.FLOAT)
        if arithmetic not in tuple(Arithmetic):
            raise UnsupportedEventError(f"nothing is known of the arithmetic {str(arithmetic)[:40]!r}")
        return cls(
            noise_multiplier=decimal(body["noise_multiplier"]),
            sampling=Sampling.from_json(body["sampling"]),
            count=_whole(body["count"], "count"),
            group=_whole(body.get("group", 1), "group"),
            arithmetic=Arithmetic(arithmetic),
        )


@dataclass(frozen=True)
class SkellamEvent:
    """``count`` sums of integer vectors, each sum plus integer Skellam noise; all records or sites take part.

    A Skellam variable of variance v is the difference of two Poisson ones of mean v / 2; sums of independent ones are
    Skellam again, so ``variance`` is the total that the sites counted on are sure to bring.

    Attributes:
      variance: Of the noise in one coordinate, grid units squared, colluders' shares taken off.
      l2: Largest 2-norm of what one unit (record or site) adds, grid units.
      l1: Largest 1-norm of the same.
    """

    variance: Decimal
    l2: Decimal
    l1: Decimal
    count: int

    def __post_init__(self) -> None:
        _check_positive(self.variance, "variance")
        _check_positive(self.l2, "2-norm")
        _check_positive(self.l1, "1-norm")
        _check_count(self.count)
        if self.l1 < self.l2:
            raise UnsupportedEventError(f"a 1-norm {self.l1} below the 2-norm {self.l2} cannot be")

    def times(self, count: int) -> "SkellamEvent":
        """Returns the same mechanism executed ``count`` times."""
        return replace(self, count=count)

    def to_json(self) -> dict[str, Any]:
        """Returns the form that ledgers and reports hold: decimals as strings."""
        numbers = {name: f"{getattr(self, name):f}" for name in ("variance", "l2", "l1")}
        return {"mechanism": "skellam", **numbers, "count": self.count}

    @classmethod
    def from_json(cls, data: object) -> "SkellamEvent":
        """Reads a Skellam event from untrusted JSON, or raises UnsupportedEventError."""
        body = _exact(data, {"mechanism", "variance", "l2", "l1", "count"})
        if body["mechanism"] != "skellam":
            raise UnsupportedEventError(f"no price is known for the mechanism {str(body['mechanism'])[:40]!r}")
        numbers = {name: decimal(body[name]) for name in ("variance", "l2", "l1")}
        return cls(**numbers, count=_whole(body["count"], "count"))


Event: TypeAlias = GaussianEvent | SkellamEvent
"""Every release that has a price."""

_E = TypeVar("_E", bound=Event)


def event_from_json(data: object) -> Event:
    """Reads an event from untrusted JSON; raises UnsupportedEventError where no price is known for it."""
    if isinstance(data, Mapping) and data.get("mechanism") == "skellam":
        return SkellamEvent.from_json(data)
    return GaussianEvent.from_json(data)


def merged(events: Sequence[_E]) -> tuple[_E, ...]:
    """Adds up the counts of equal mechanisms, in order of first appearance; composition does not change."""
    counts: dict[_E, int] = {}
    for event in events:
        key = replace(event, count=1)
        counts[key] = counts.get(key, 0) + event.count
    return tuple(replace(key, count=count) for key, count in counts.items())


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


def _check_positive(value: Decimal, what: str) -> None:
    if not (value.is_finite() and value > 0):
        raise UnsupportedEventError(f"{what} {value} is not a positive number")


def _check_count(count: int) -> None:
    if count < 1:
        raise UnsupportedEventError(f"an event happens at least once, not {count} times")


def _whole(value: object, what: str) -> int:
    if type(value) is not int or value > _MOST_EXECUTIONS:
        raise UnsupportedEventError(f"an event's {what} is a whole number of at most {_MOST_EXECUTIONS}")
    return value


def _exact(data: object, keys: set[str], optional: set[str] | frozenset[str] = frozenset()) -> Mapping[str, Any]:
    if not isinstance(data, Mapping) or not keys <= set(data) <= keys | optional:
        raise UnsupportedEventError(f"an event has exactly the fields {', '.join(sorted(keys))}")
    return data
