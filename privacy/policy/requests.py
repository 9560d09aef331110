"""What is asked of a policy, built from plain values; the names are those of the schemas.

Cedar knows whole numbers only, so costs are in thousandths: what harms when it grows (epsilon, clip) is rounded up,
what harms when it shrinks (noise) is rounded down. No protection is no special case: it is epsilon and clip without
limit, delta 1, noise 0.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from privacy.errors import PrivacyError
from privacy.policy.engine import Request, Value

MOST = 2**63 - 1
"""Largest whole number of Cedar: stands for "without limit"."""

_ENDLESS = Decimal("Infinity")


@dataclass(frozen=True)
class Protection:
    """The differential privacy of a run, each number that of its weakest setting; without arguments: none at all.

    Attributes:
      settings: Those in force, of ``record``, ``site``, ``distributed``.
      epsilon: Of this run, every retry included.
      epsilon_after: What the asset will have cost in all once the run is over, by the site's own ledger.
      delta: The largest.
      clip: The largest.
      noise: The least, as a multiple of the clip.
    """

    settings: tuple[str, ...] = ()
    epsilon: Decimal = _ENDLESS
    epsilon_after: Decimal = _ENDLESS
    delta: Decimal = Decimal(1)
    clip: Decimal = _ENDLESS
    noise: Decimal = Decimal(0)


@dataclass(frozen=True)
class TrainingFacts:
    """A run as a site is asked to join it. What it knows itself (asset, ledger, clock) is never the server's word.

    Attributes:
      server: Id of the coordinator that asks, from its verified signature.
      asset: Name of the site's own data.
      sensitivity: Of the asset, a word of the site.
      purposes: What the asset may be used for.
      epsilon_cap: The most that the asset may ever cost.
      federation: Name of the federation.
      strategy: Name of the strategy.
      study: Digest of what is learnt, hex.
      application: Digest of the installed application, hex.
      purpose: What for.
      secagg: Whether updates are masked.
      cohort: Sites asked.
      survivors: Fewest sites in a sum.
      threshold: Shares that open a secret.
      cover: Fewest sites in the sum of a region.
      rounds: Most rounds, retries included.
      protection: The differential privacy in force.
      moment: Now, by the site's clock and in the site's time zone.
    """

    server: str
    asset: str
    sensitivity: str
    purposes: tuple[str, ...]
    epsilon_cap: Decimal
    federation: str
    strategy: str
    study: str
    application: str
    purpose: str
    secagg: bool
    cohort: int
    survivors: int
    threshold: int
    cover: int
    rounds: int
    protection: Protection
    moment: datetime


@dataclass(frozen=True)
class ServerFacts:
    """What somebody asks of a coordinator's machine.

    Attributes:
      user: Name of the account at the other end of the socket.
      roles: That this account has.
      action: One of ``server.cedarschema``.
      federation: Name of the federation.
      moment: Now, by the coordinator's clock and in its time zone.
      strategy: Name of the strategy, where the action is about one.
    """

    user: str
    roles: tuple[str, ...]
    action: str
    federation: str
    moment: datetime
    strategy: str = ""


def training_request(facts: TrainingFacts) -> Request:
    """Returns what a site's policy is asked.

    Raises: PrivacyError: A number of the protection means nothing, such as a negative epsilon.
    """
    protection = facts.protection
    context: dict[str, Value] = {
        **{name: getattr(facts, name) for name in ("federation", "strategy", "study", "application", "purpose")},
        **{name: getattr(facts, name) for name in ("cohort", "survivors", "threshold", "cover", "rounds")},
        **local_time(facts.moment),
        "secagg": facts.secagg,
        "settings": protection.settings,
        "epsilon_milli": milli_up(protection.epsilon),
        "epsilon_after_milli": milli_up(protection.epsilon_after),
        "delta_exponent": delta_exponent(protection.delta),
        "clip_milli": milli_up(protection.clip),
        "noise_milli": milli_down(protection.noise),
    }
    attributes: dict[str, Value] = {
        "sensitivity": facts.sensitivity,
        "purposes": facts.purposes,
        "epsilon_cap_milli": milli_down(facts.epsilon_cap),
    }
    return Request(("Coordinator", facts.server), "train", ("Asset", facts.asset), context, attributes)


def server_request(facts: ServerFacts) -> Request:
    """Returns what a coordinator's policy is asked."""
    context: dict[str, Value] = {"strategy": facts.strategy, **local_time(facts.moment)}
    resource = ("Federation", facts.federation)
    return Request(("User", facts.user), facts.action, resource, context, roles=facts.roles)


def milli_up(value: Decimal) -> int:
    """Returns thousandths, rounded up; ``MOST`` for what does not fit. Raises: PrivacyError: Below 0, or no number."""
    return _milli(value, ROUND_CEILING, MOST)


def milli_down(value: Decimal) -> int:
    """Returns thousandths, rounded down; below ``MOST``, so that no cap allows what has no limit. Raises: As above."""
    return _milli(value, ROUND_FLOOR, MOST - 1)


def _milli(value: Decimal, rounding: str, most: int) -> int:
    if value.is_nan() or value < 0:
        raise PrivacyError(f"{value} is no amount of privacy")
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or value >= MOST // 1000:
        return most
    # By its digits: arithmetic of decimals would round to 28 of them first.
    return int(Decimal((0, digits, exponent + 3)).to_integral_value(rounding=rounding))


def delta_exponent(delta: Decimal) -> int:
    """Returns ``⌊-log10 delta⌋``: 5 for 1e-5, 4 for 2e-5, 0 for 1. Raises: PrivacyError: Not above 0 and at most 1."""
    if delta.is_nan() or not 0 < delta <= 1:
        raise PrivacyError(f"{delta} is no delta")
    first, *others = delta.as_tuple().digits
    exactly = first == 1 and not any(others)
    return -delta.adjusted() - (0 if exactly else 1)


def local_time(moment: datetime) -> dict[str, int]:
    """Returns the minute of the day and the day of the week. Raises: ValueError: Without a time zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is no local time")
    return {"minute": 60 * moment.hour + moment.minute, "weekday": moment.isoweekday()}
