"""Whether a policy written in Cedar allows a request; the one file that imports Cedar.

Cedar refuses by default, and a ``forbid`` beats every ``permit``. One thing is stricter here: a rule that cannot be
evaluated (an integer overflow) is skipped by Cedar, and a skipped ``forbid`` would be an Allow; here it is a refusal.
And a site's policy that names none of ``CHANNEL_ACTIONS`` allows none, however wide its permits: whoever wrote it was
not asked about them.

See: Cutler et al., "Cedar: A New Language for Expressive, Fast, Safe, and Analyzable Authorization", OOPSLA 2024, §3.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

import cedarpy

from privacy.errors import ConfigError
from privacy.policy import shipped
from privacy.policy.source import Statement, statements

Kind = Literal["site", "server"]
Value = bool | int | str | tuple[str, ...]

NO_RULE = "no rule allows it"
CHANNEL_ACTIONS = ("hold", "release", "ask")
"""What agents may want of each other."""

_MAX_REASON = 200
_RULE_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_ID_HINT = 'Write @id("small-cohort") before it: a-z, 0-9 and -, a different one for each rule.'


@dataclass(frozen=True)
class Request:
    """One question to a policy; its words are those of the schema. Everything in it may come from a stranger.

    Attributes:
      principal: Type and id of who asks.
      action: What for.
      resource: Type and id of what it is done to.
      context: What is known about the request.
      attributes: What is known about the resource.
      roles: Ids of the principal's roles.
    """

    principal: tuple[str, str]
    action: str
    resource: tuple[str, str]
    context: Mapping[str, Value]
    attributes: Mapping[str, Value] = field(default_factory=dict)
    roles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """An answer, fit for a log.

    Attributes:
      allowed: True only where a rule permits the request, none forbids it and every rule could be evaluated.
      reasons: Ids of the rules that decided, in the order of the policy; or why there is no decision. Short lines.
      policy: Digest of the policy that was asked.
    """

    allowed: bool
    reasons: tuple[str, ...]
    policy: str


class Policy(Protocol):
    """Whoever decides. ``decide`` never raises, and anything but an explicit Allow is ``allowed=False``."""

    @property
    def digest(self) -> str:
        """SHA-256 of the policy as it is written, hex."""

    def decide(self, request: Request) -> Verdict:
        """Answers a request."""


class CedarPolicy:
    """A policy that parsed and fits the schema of its kind; ``digest`` is the SHA-256 of its file, hex.

    Attributes:
      rules: Ids of its rules, in their order.

    Raises: ConfigError: It cannot be used; the message names the line and says what Cedar says.
    """

    def __init__(self, text: str, kind: Kind) -> None:
        written = statements(text)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self._policies = _parse(text, written)
        rules = _rules(text, written)
        self._names = _names(rules, written)
        self._unasked = CHANNEL_ACTIONS if kind == "site" and not _speaks_of(rules, CHANNEL_ACTIONS) else ()
        self._schema = _schema(kind, channel=kind == "site" and not self._unasked)
        self.rules = tuple(self._names.values())
        _validate(text, self._schema, dict(zip(self._names, written, strict=True)))

    def decide(self, request: Request) -> Verdict:
        """Answers a request.

        Guarantees: never raises; allows only if a rule permits, none forbids and none failed.
        """
        if request.action in self._unasked:
            return Verdict(False, (NO_RULE,), self.digest)
        try:
            answer = cedarpy.is_authorized(_asked(request), self._policies, _entities(request), self._schema)
            allowed = answer.decision is cedarpy.Decision.Allow
            deciding = set(answer.diagnostics.reasons)
            ids = [self._names[name] for name in self._names if name in deciding]
            failed = [self._words(error) for error in answer.diagnostics.errors]
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic in Rust is no Exception, and is a refusal as well
            return Verdict(False, (_line(f"the policy engine failed: {type(error).__name__}"),), self.digest)
        if allowed:
            return Verdict(bool(ids) and not failed, tuple(failed or ids) or (NO_RULE,), self.digest)
        return Verdict(False, (*ids, *failed) or (NO_RULE,), self.digest)

    def _words(self, error: str) -> str:
        return _line(re.sub(r"`(policy\d+)`", lambda match: self._names.get(match[1], match[1]), error))


@cache
def _schema(kind: Kind, *, channel: bool) -> cedarpy.Schema:
    names = (kind, "channel") if channel else (kind,)
    return cedarpy.Schema.from_str("".join(shipped.read(f"{name}.cedarschema") for name in names))


def _parse(text: str, written: Iterable[Statement]) -> cedarpy.PolicySet:
    try:
        return cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        whole = error
    for statement in written:  # Cedar names no line: the first rule that does not parse alone is where it is
        try:
            cedarpy.PolicySet.from_str(statement.text)
        except ValueError as error:
            raise ConfigError(f"the rule in line {statement.line} of the policy: {_line(str(error))}") from None
    raise ConfigError(f"the policy: {_line(str(whole))}")


def _rules(text: str, written: tuple[Statement, ...]) -> dict[str, Any]:
    """Returns each rule as Cedar read it, by Cedar's name for it."""
    try:
        parsed: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))
    except (ValueError, RecursionError):
        raise ConfigError("a rule of the policy is too long a chain of conditions") from None
    rules: dict[str, Any] = parsed["staticPolicies"]
    if len(rules) != len(written):
        raise ConfigError("the policy has a template; a rule may not leave its principal or resource open")
    if not any(rule["effect"] == "permit" for rule in rules.values()):
        raise ConfigError("the policy has no permit: it would refuse everything", hint="To stop, pause instead.")
    return rules


def _speaks_of(rules: Mapping[str, Any], actions: Sequence[str]) -> bool:
    """Whether a rule names one of the actions, in its head or in a condition."""
    left: list[Any] = [rules]
    while left:  # by hand: a long chain of conditions is deeply nested
        value = left.pop()
        if isinstance(value, dict):
            if value.get("type") == "Action" and value.get("id") in actions:
                return True
            left += value.values()
        elif isinstance(value, list):
            left += value
    return False


def _names(rules: Mapping[str, Any], written: tuple[Statement, ...]) -> dict[str, str]:
    """Returns the id of each rule by Cedar's name for it, in the order of the text."""
    names: dict[str, str] = {}
    for number, statement in enumerate(written):
        name = f"policy{number}"
        rule_id = rules[name].get("annotations", {}).get("id") or ""
        if not _RULE_ID.fullmatch(rule_id) or rule_id in names.values():
            raise ConfigError(f"the rule in line {statement.line} of the policy has no id of its own", hint=_ID_HINT)
        names[name] = rule_id
    return names


def _validate(text: str, schema: cedarpy.Schema, written: Mapping[str, Statement]) -> None:
    for error in cedarpy.validate_policies(text, schema).errors:
        statement = written.get(error.policy_id)
        where = f"the rule in line {statement.line} of the policy" if statement else "the policy"
        words = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        raise ConfigError(f"{where}: {_line(words)}", hint="The words a rule may use: docs/how-to-policy.md.")


def _asked(request: Request) -> dict[str, Any]:
    return {
        "principal": _uid(*request.principal),
        "action": _uid("Action", request.action),
        "resource": _uid(*request.resource),
        "context": _plain(request.context),
    }


def _entities(request: Request) -> list[dict[str, Any]]:
    roles = [_uid("Role", role) for role in request.roles]
    return [
        {"uid": _uid(*request.principal), "attrs": {}, "parents": roles},
        {"uid": _uid(*request.resource), "attrs": _plain(request.attributes), "parents": []},
    ]


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _plain(values: Mapping[str, Value]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _line(text: str) -> str:
    """Returns text that may hold a stranger's words as one short line that a log and a terminal can show."""
    return "".join(character if character.isprintable() else "?" for character in text)[:_MAX_REASON]
