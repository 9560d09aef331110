"""What no policy and no charter can lift, in code that reads neither. It is checked after both, and before any answer.

Symbols: ``n`` sites in the cohort, of which ``n_c = ⌈n/3⌉ - 1``, just less than a third, may collude with the server;
``t`` shares that open a secret. Each rule returns why it forbids a run, or nothing.

See: docs/protocol.md §2.2.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal

from privacy.charter.document import MIN_NOISE, SETTINGS
from privacy.errors import PrivacyError
from privacy.policy.requests import TrainingFacts
from privacy.secagg.context import MIN_SITES, default_n_c


class FloorRefusalError(PrivacyError):
    """A run that nobody can allow.

    Attributes:
      clause: Name of the rule that forbids it.
    """

    def __init__(self, clause: str, why: str) -> None:
        super().__init__(f"no policy can allow this ({clause}): {why}")
        self.clause = clause


def check_floor(facts: TrainingFacts) -> None:
    """Refuses a run that nobody can allow; returns nothing.

    Raises: FloorRefusalError: A rule forbids it; the first one that does is named.
    """
    for clause, rule in RULES.items():
        why = rule(facts)
        if why is not None:
            raise FloorRefusalError(clause, why)


Rule = Callable[[TrainingFacts], str | None]


def _masks(facts: TrainingFacts) -> str | None:
    return None if facts.secagg else "the updates would not be masked"


def _at_least(name: str) -> Rule:
    def rule(facts: TrainingFacts) -> str | None:
        count = getattr(facts, name)
        return None if count >= MIN_SITES else f"{count} sites are fewer than {MIN_SITES}"

    return rule


def _threshold(facts: TrainingFacts) -> str | None:
    n, t = facts.cohort, facts.threshold
    if 2 * t > n + default_n_c(n):
        return None
    return f"with {t} shares of {n}, fewer than a third of the sites could open two sums with the server"


def _settings(facts: TrainingFacts) -> str | None:
    odd = sorted(set(facts.protection.settings) - set(SETTINGS))
    return f"{', '.join(odd)} is no differential privacy" if odd else None


def _finite(name: str) -> Rule:
    def rule(facts: TrainingFacts) -> str | None:
        value: Decimal = getattr(facts.protection, name)
        if not facts.protection.settings or (value.is_finite() and value > 0):
            return None
        return f"{name} {value} is no finite number above 0"

    return rule


def _delta(facts: TrainingFacts) -> str | None:
    delta = facts.protection.delta
    if not facts.protection.settings or (delta.is_finite() and 0 < delta < 1):
        return None
    return f"delta {delta} is not above 0 and below 1"


def _noise(facts: TrainingFacts) -> str | None:
    noise = facts.protection.noise
    if not facts.protection.settings or (noise.is_finite() and noise >= MIN_NOISE):
        return None
    return f"noise of {noise} clips is less than {MIN_NOISE}"


RULES: Mapping[str, Rule] = {
    "masks": _masks,
    "cohort": _at_least("cohort"),
    "survivors": _at_least("survivors"),
    "cover": _at_least("cover"),
    "threshold": _threshold,
    "setting": _settings,
    "epsilon": _finite("epsilon"),
    "epsilon after": _finite("epsilon_after"),
    "clip": _finite("clip"),
    "delta": _delta,
    "noise": _noise,
}
