"""Whether a charter allows a proposed job. Nothing here trusts the proposal, and what is not listed is refused.

Every rule is one clause: it returns why the job is forbidden, or nothing. ``check`` asks them all.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from privacy.charter.document import Charter
from privacy.errors import ConfigError, PrivacyError
from privacy.secagg.context import Thresholds
from privacy.secagg.encoding import in_order

MAX_REASON = 300


class CharterRefusalError(PrivacyError):
    """The charter does not allow a job.

    Attributes:
      clause: Name of the rule that forbids it.
    """

    def __init__(self, clause: str, why: str) -> None:
        # The proposal's own words are in it, and it goes to terminals and logs.
        plain = "".join(letter if letter.isprintable() else "?" for letter in why[:MAX_REASON])
        super().__init__(
            f"the charter forbids this ({clause}): {plain}", hint="collegium federation show says what it allows."
        )
        self.clause = clause


@dataclass(frozen=True)
class Terms:
    """One privacy setting of a job, with the values that the whole run is priced for."""

    setting: str
    epsilon: Decimal
    delta: Decimal
    clip: Decimal
    noise: Decimal


@dataclass(frozen=True)
class Proposal:
    """What a site is asked to take part in; all public.

    Attributes:
      charter: Digest of the charter it is proposed under, hex.
      application: SHA-256 of the application that would run, hex.
      study: SHA-256 of what would be learnt, hex.
      strategy: Its name.
      parameters: Every parameter, defaults included.
      cohort: Site ids, sorted.
      thresholds: Of secure aggregation; None without it.
      privacy: The settings in force, all of them; empty without differential privacy.
      purpose: What for.
      asset: On which data.
    """

    charter: str
    application: str
    study: str
    strategy: str
    parameters: Mapping[str, Decimal]
    cohort: tuple[str, ...]
    thresholds: Thresholds | None
    privacy: tuple[Terms, ...]
    purpose: str
    asset: str


Rule = Callable[[Charter, Proposal, datetime], str | None]


def check(charter: Charter, proposal: Proposal, now: datetime, *, unsafe_without_masks: bool = False) -> None:
    """Refuses a job that the charter does not allow; returns nothing.

    Args:
      charter: The one the site pinned, verified.
      proposal: From a stranger.
      now: The site's own clock, with its time zone.
      unsafe_without_masks: For simulations that compare with and without masks; no charter and no message can ask
        for it. The clauses on thresholds still bind where there are some.

    Raises: CharterRefusalError: A clause forbids it; the first one that does is named.
    """
    for clause, rule in RULES.items():
        if unsafe_without_masks and rule is _masks:
            continue
        why = rule(charter, proposal, now)
        if why is not None:
            raise CharterRefusalError(clause, why)


def _version(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    if proposal.charter == charter.digest:
        return None
    return f"the job names another charter than version {charter.version}, which is in force here"


def _begun(charter: Charter, _: Proposal, now: datetime) -> str | None:
    return None if now >= charter.not_before else f"nothing may run before {charter.not_before.isoformat()}"


def _ended(charter: Charter, _: Proposal, now: datetime) -> str | None:
    return None if now < charter.not_after else f"nothing may run from {charter.not_after.isoformat()} on"


def _application(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    return None if proposal.application == charter.application else "the application is not the one that was approved"


def _study(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    if proposal.study in charter.studies.values():
        return None
    return f"what would be learnt is none of the approved studies: {', '.join(charter.studies)}"


def _strategy(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    if proposal.strategy in charter.strategies:
        return None
    return f"strategy {proposal.strategy!r} is not listed, only {', '.join(charter.strategies)}"


def _parameters(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    """A parameter that is not named would have a default that nobody looked at."""
    listed = charter.strategies.get(proposal.strategy, {})
    odd = sorted(set(listed) ^ set(proposal.parameters))
    return f"the parameters are not exactly those listed: {', '.join(odd)}" if odd else None


def _ranges(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    for name, ends in charter.strategies.get(proposal.strategy, {}).items():
        value = proposal.parameters.get(name, ends.low)
        if not (value.is_finite() and ends.low <= value <= ends.high):
            return f"{name} = {value} is not within {ends.low} and {ends.high}"
    return None


def _members(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    strangers = sorted(set(proposal.cohort) - set(charter.sites))
    return f"{', '.join(strangers)} is no site of the federation" if strangers else None


def _order(_: Charter, proposal: Proposal, __: datetime) -> str | None:
    return None if in_order(proposal.cohort) else "the cohort is not sorted, or names a site twice"


def _cohort(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    least = charter.floors.cohort
    return None if len(proposal.cohort) >= least else f"{len(proposal.cohort)} sites are fewer than {least}"


def _masks(_: Charter, proposal: Proposal, __: datetime) -> str | None:
    return None if proposal.thresholds is not None else "the updates would not be masked"


def _protocol(_: Charter, proposal: Proposal, __: datetime) -> str | None:
    if proposal.thresholds is None:
        return None
    try:
        proposal.thresholds.check(len(proposal.cohort))
    except ConfigError as error:
        return str(error)
    return None


def _survivors(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    return _least(proposal, "min_survivors", charter.floors.survivors, "survivors would do")


def _threshold(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    return _least(proposal, "t", charter.floors.threshold, "shares would open a secret")


def _cover(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    return _least(proposal, "min_cover", charter.floors.cover, "holders of a region would do")


def _least(proposal: Proposal, name: str, least: int, what: str) -> str | None:
    if proposal.thresholds is None:
        return None
    n = getattr(proposal.thresholds, name)
    return None if n >= least else f"{n} {what}, fewer than {least}"


def _some_privacy(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    return None if proposal.privacy or charter.unsafe_without_dp else "there is no differential privacy"


def _settings(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    for terms in proposal.privacy:
        if terms.setting not in charter.privacy:
            return f"privacy setting {terms.setting!r} is not listed, only {', '.join(charter.privacy) or 'none'}"
    return None


def _repeated(_: Charter, proposal: Proposal, __: datetime) -> str | None:
    names = [terms.setting for terms in proposal.privacy]
    return "a privacy setting is there twice" if len(set(names)) < len(names) else None


def _within(name: str) -> Rule:
    """Returns the rule that a value of every setting is above 0 and at most what the charter lists."""

    def rule(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
        for terms in _listed(charter, proposal):
            value, most = getattr(terms, name), getattr(charter.privacy[terms.setting], name)
            if not (value.is_finite() and 0 < value <= most):
                return f"{terms.setting}: {name} {value} is not above 0 and at most {most}"
        return None

    return rule


def _noise(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    for terms in _listed(charter, proposal):
        least = charter.privacy[terms.setting].noise
        if not (terms.noise.is_finite() and terms.noise >= least):
            return f"{terms.setting}: noise of {terms.noise} clips is less than {least}"
    return None


def _listed(charter: Charter, proposal: Proposal) -> Iterator[Terms]:
    return (terms for terms in proposal.privacy if terms.setting in charter.privacy)


def _asset(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    if proposal.asset in charter.assets:
        return None
    return f"asset {proposal.asset!r} is not listed, only {', '.join(charter.assets)}"


def _purpose(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
    asset = charter.assets.get(proposal.asset)
    if asset is None or proposal.purpose in asset.purposes:
        return None
    return f"{proposal.asset} may not be used for {proposal.purpose!r}, only for {', '.join(asset.purposes)}"


def _cap(name: str) -> Rule:
    """Returns the rule that no run costs more than the asset may ever cost; the ledger counts what runs add up to."""

    def rule(charter: Charter, proposal: Proposal, _: datetime) -> str | None:
        asset = charter.assets.get(proposal.asset)
        if asset is None:
            return None
        most = getattr(asset, name)
        for terms in proposal.privacy:
            value = getattr(terms, name)
            if not (value.is_finite() and value <= most):
                return f"{terms.setting}: {name} {value} is more than the {most} that {proposal.asset} may cost"
        return None

    return rule


RULES: Mapping[str, Rule] = {
    "version": _version,
    "not before": _begun,
    "not after": _ended,
    "application": _application,
    "study": _study,
    "strategy": _strategy,
    "parameters": _parameters,
    "ranges": _ranges,
    "members": _members,
    "order": _order,
    "cohort": _cohort,
    "secure aggregation": _masks,
    "protocol": _protocol,
    "survivors": _survivors,
    "threshold": _threshold,
    "cover": _cover,
    "privacy": _some_privacy,
    "setting": _settings,
    "repeated": _repeated,
    "epsilon": _within("epsilon"),
    "delta": _within("delta"),
    "clip": _within("clip"),
    "noise": _noise,
    "asset": _asset,
    "purpose": _purpose,
    "epsilon of the asset": _cap("epsilon"),
    "delta of the asset": _cap("delta"),
}
"""Every clause, in the order in which it is asked; deleting any one fails a test."""
