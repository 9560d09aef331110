"""What no policy and no charter can lift of what agents want of each other, in code that reads neither.

Symbols: ``n`` agents whose scores are added up, ``n_c`` of them share what they know with whoever asks. Each rule
returns why it forbids something, or nothing. To hold a stage gives nothing of this site away, so no rule is about that.
"""

from collections.abc import Callable, Mapping

from privacy.charter.document import MIN_NOISE
from privacy.charter.inference import MODES
from privacy.policy.channel_requests import AskFacts, ReleaseFacts
from privacy.policy.floor import FloorRefusalError
from privacy.secagg.context import MIN_SITES, default_n_c

CROSSINGS = frozenset({"inputs", "activations", "gradients", "labels"})
NEVER_NOISED = frozenset({"inputs", "labels"})
MIN_HONEST = 2
"""Agents that do not share what they know: with one, the others' scores subtracted from the sum are its own."""

ReleaseRule = Callable[[ReleaseFacts], str | None]
AskRule = Callable[[AskFacts, str], str | None]


def check_release(facts: ReleaseFacts) -> None:
    """Refuses a release that nobody can allow; returns nothing.

    Raises: FloorRefusalError: A rule forbids it; the first one that does is named.
    """
    for clause, rule in RELEASE_RULES.items():
        why = rule(facts)
        if why is not None:
            raise FloorRefusalError(clause, why)


def check_ask(facts: AskFacts, site: str) -> None:
    """Refuses an answer that nobody can allow; returns nothing.

    Args:
      facts: Of the question.
      site: Id of who is asked: this site.

    Raises: FloorRefusalError: A rule forbids it; the first one that does is named.
    """
    for clause, rule in ASK_RULES.items():
        why = rule(facts, site)
        if why is not None:
            raise FloorRefusalError(clause, why)


def _what(facts: ReleaseFacts) -> str | None:
    odd = sorted(set(facts.what) - CROSSINGS)
    if odd or not facts.what:
        return f"{', '.join(odd) or 'nothing'} is not what can cross"
    return None


def _reason(facts: ReleaseFacts) -> str | None:
    if bool(facts.reason.strip()) and facts.reason.isprintable():
        return None if facts.unsafe else "noised values need no reason: which of the two is meant?"
    return "values would leave as they are, and nobody said why" if facts.unsafe else None


def _noised(facts: ReleaseFacts) -> str | None:
    odd = sorted(set(facts.what) & NEVER_NOISED)
    return (
        f"noise leaves nothing of {', '.join(odd)}: say in words why they leave" if odd and not facts.unsafe else None
    )


def _clip(facts: ReleaseFacts) -> str | None:
    return None if facts.unsafe or facts.clip > 0 else f"clip {facts.clip} is not above 0"


def _noise(facts: ReleaseFacts) -> str | None:
    if facts.unsafe or facts.noise >= MIN_NOISE:
        return None
    return f"noise of {facts.noise} clips is less than {MIN_NOISE}"


def _most(facts: ReleaseFacts) -> str | None:
    return None if facts.most >= 1 else f"a record cannot leave {facts.most} times"


def _cost(facts: ReleaseFacts) -> str | None:
    after = facts.epsilon_after
    if facts.unsafe or (after.is_finite() and after > 0):
        return None
    return f"epsilon {after} is no finite number above 0"


RELEASE_RULES: Mapping[str, ReleaseRule] = {
    "what": _what,
    "reason": _reason,
    "never noised": _noised,
    "clip": _clip,
    "noise": _noise,
    "most": _most,
    "epsilon after": _cost,
}


def _mode(facts: AskFacts, _: str) -> str | None:
    return None if facts.mode in MODES else f"{facts.mode!r} is no way to answer"


def _counted(facts: AskFacts, _: str) -> str | None:
    if 1 <= facts.queries <= facts.asked_today <= facts.asked_ever:
        return None
    return "the questions were not counted before they were answered"


def _at_home(facts: AskFacts, site: str) -> str | None:
    return None if facts.mode != "local" or facts.asker == site else "a local answer is for the site itself"


def _agents(facts: AskFacts, _: str) -> str | None:
    n = len(set(facts.agents))
    if facts.mode != "ensemble" or n >= MIN_SITES:
        return None
    return f"{n} agents are fewer than {MIN_SITES}"


def _colluders(facts: AskFacts, _: str) -> str | None:
    """An asker that is an agent knows its own scores."""
    n, n_c = len(set(facts.agents)), facts.colluders
    if facts.mode != "ensemble":
        return None
    if n_c < max(default_n_c(n), int(facts.asker in facts.agents)):
        return f"{n_c} colluders among {n} agents are too few to reckon with"
    return None if n - n_c >= MIN_HONEST else f"of {n} agents {n_c} may share what they know with the asker"


def _answer_noise(facts: AskFacts, _: str) -> str | None:
    noise = facts.noise
    if noise == 0 or (noise.is_finite() and noise >= MIN_NOISE):
        return None
    return f"noise of {noise} is neither none nor at least {MIN_NOISE}"


def _answer_cost(facts: AskFacts, _: str) -> str | None:
    after = facts.epsilon_after
    if facts.noise == 0 or (after.is_finite() and after > 0):
        return None
    return f"epsilon {after} is no finite number above 0"


ASK_RULES: Mapping[str, AskRule] = {
    "mode": _mode,
    "counted": _counted,
    "local": _at_home,
    "agents": _agents,
    "colluders": _colluders,
    "noise": _answer_noise,
    "epsilon after": _answer_cost,
}
