"""Whether a charter allows what agents want of each other. What is not listed is refused.

Every rule is one clause: it returns why something is forbidden, or nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import TypeVar

from privacy.charter.document import Charter
from privacy.charter.inference import Inference
from privacy.charter.rules import CharterRefusalError
from privacy.policy.channel_requests import AskFacts, HoldFacts, ReleaseFacts

_Facts = TypeVar("_Facts", HoldFacts, ReleaseFacts, AskFacts)
Rules = Mapping[str, Callable[[Charter, _Facts, str], str | None]]


def check_hold(charter: Charter, facts: HoldFacts, site: str, now: datetime) -> None:
    """Refuses to hold a stage. Raises: CharterRefusalError: The first clause that forbids it."""
    _check(HOLD_RULES, charter, facts, site, now)


def check_release(charter: Charter, facts: ReleaseFacts, site: str, now: datetime) -> None:
    """Refuses to let values leave. Raises: CharterRefusalError: The first clause that forbids it."""
    _check(RELEASE_RULES, charter, facts, site, now)


def check_ask(charter: Charter, facts: AskFacts, site: str, now: datetime) -> Inference:
    """Returns the terms under which to answer. Raises: CharterRefusalError: The first clause that forbids it."""
    terms = charter.inference
    if terms is None:
        raise CharterRefusalError("inference", "it has no terms of joint answers")
    _check(ASK_RULES, charter, facts, site, now)
    return terms


def hold_purposes(charter: Charter, *, train: bool) -> tuple[str, ...]:
    """Returns what stages may work for: training what data may be used for, inference what may be asked for."""
    if train:
        return tuple(sorted({purpose for asset in charter.assets.values() for purpose in asset.purposes}))
    terms = charter.inference
    return terms.purposes if terms is not None and "chain" in terms.modes else ()


def _check(rules: Rules[_Facts], charter: Charter, facts: _Facts, site: str, now: datetime) -> None:
    if now < charter.not_before:
        raise CharterRefusalError("not before", f"nothing may run before {charter.not_before.isoformat()}")
    if now >= charter.not_after:
        raise CharterRefusalError("not after", f"nothing may run from {charter.not_after.isoformat()} on")
    for clause, rule in rules.items():
        why = rule(charter, facts, site)
        if why is not None:
            raise CharterRefusalError(clause, why)


def _strangers(charter: Charter, *named: str) -> Iterator[str]:
    return (f"{name} is no site of the federation" for name in named if name not in charter.sites)


def _holders(charter: Charter, facts: HoldFacts, _: str) -> str | None:
    return next(_strangers(charter, facts.asker, facts.owner), None)


def _chain(charter: Charter, facts: HoldFacts | ReleaseFacts, _: str) -> str | None:
    """A plan is agreed on by itself, or with the study that it belongs to."""
    if facts.plan in charter.chains.values() or facts.study in charter.studies.values():
        return None
    return f"the plan is none of the approved chains: {', '.join(charter.chains) or 'there are none'}"


def _hold_purpose(charter: Charter, facts: HoldFacts, _: str) -> str | None:
    listed = hold_purposes(charter, train=facts.train)
    kind = "trained" if facts.train else "asked"
    if facts.purpose in listed:
        return None
    return f"stages may not be {kind} for {facts.purpose!r}, only for {', '.join(listed) or 'nothing'}"


HOLD_RULES: Rules[HoldFacts] = {"members": _holders, "chain": _chain, "purpose": _hold_purpose}


def _receiver(charter: Charter, facts: ReleaseFacts, site: str) -> str | None:
    stranger = next(_strangers(charter, facts.receiver), None)
    return stranger or ("the receiver is the owner itself" if facts.receiver == site else None)


def _asset(charter: Charter, facts: ReleaseFacts, _: str) -> str | None:
    if facts.asset in charter.assets:
        return None
    return f"asset {facts.asset!r} is not listed, only {', '.join(charter.assets)}"


def _release_purpose(charter: Charter, facts: ReleaseFacts, _: str) -> str | None:
    asset = charter.assets.get(facts.asset)
    if asset is None or facts.purpose in asset.purposes:
        return None
    return f"{facts.asset} may not be used for {facts.purpose!r}, only for {', '.join(asset.purposes)}"


def _unsafe(charter: Charter, facts: ReleaseFacts, _: str) -> str | None:
    """Officers who said that nothing runs without differential privacy did not mean everything but this."""
    if not facts.unsafe or charter.unsafe_without_dp:
        return None
    return "values would leave as they are, without any differential privacy"


def _release_cost(charter: Charter, facts: ReleaseFacts, _: str) -> str | None:
    asset, after = charter.assets.get(facts.asset), facts.epsilon_after
    if asset is None or facts.unsafe or (after.is_finite() and after <= asset.epsilon):
        return None
    return f"epsilon {after} is more than the {asset.epsilon} that {facts.asset} may cost"


RELEASE_RULES: Rules[ReleaseFacts] = {
    "members": _receiver,
    "chain": _chain,
    "asset": _asset,
    "purpose": _release_purpose,
    "unsafe": _unsafe,
    "epsilon of the asset": _release_cost,
}


def _asker(charter: Charter, facts: AskFacts, _: str) -> str | None:
    return next(_strangers(charter, facts.asker), None)


def _mode(charter: Charter, facts: AskFacts, _: str) -> str | None:
    terms = charter.inference
    if terms is None or facts.mode in terms.modes:
        return None
    return f"answers may not be {facts.mode}, only {', '.join(terms.modes)}"


def _ask_purpose(charter: Charter, facts: AskFacts, _: str) -> str | None:
    terms = charter.inference
    if terms is None or facts.purpose in terms.purposes:
        return None
    return f"nobody may ask for {facts.purpose!r}, only for {', '.join(terms.purposes)}"


def _queries(charter: Charter, facts: AskFacts, _: str) -> str | None:
    terms = charter.inference
    if terms is None or facts.queries <= terms.most_queries:
        return None
    return f"{facts.queries} rows in one batch are more than {terms.most_queries}"


def _agents(charter: Charter, facts: AskFacts, site: str) -> str | None:
    """Without noise it is always the same set; with noise some may be missing."""
    terms = charter.inference
    if terms is None or facts.mode != "ensemble":
        return None
    if site not in facts.agents:
        return f"{site} is not among the agents asked"
    named = ", ".join(facts.agents)
    if terms.noise is None:
        return None if facts.agents == terms.agents else f"without noise {named} are not all the agents, or more"
    return None if set(facts.agents) <= set(terms.agents) else f"{named} are not all agents of the charter"


def _answer_noise(charter: Charter, facts: AskFacts, _: str) -> str | None:
    terms = charter.inference
    if terms is None or facts.mode != "ensemble":
        return None
    least = terms.noise.multiplier if terms.noise else Decimal(0)
    return None if facts.noise.is_finite() and facts.noise >= least else f"noise of {facts.noise} is less than {least}"


def _answer_cost(charter: Charter, facts: AskFacts, _: str) -> str | None:
    noise, after = charter.inference.noise if charter.inference else None, facts.epsilon_after
    if noise is None or facts.mode != "ensemble" or (after.is_finite() and after <= noise.epsilon):
        return None
    return f"epsilon {after} is more than the {noise.epsilon} that answers may cost"


ASK_RULES: Rules[AskFacts] = {
    "members": _asker,
    "mode": _mode,
    "purpose": _ask_purpose,
    "queries": _queries,
    "agents": _agents,
    "noise": _answer_noise,
    "epsilon of answers": _answer_cost,
}
