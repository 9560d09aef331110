"""Tables of requests with the answers that a policy is to give, in TOML: the tests of a policy.

``[request]`` is one whole request, and so is each ``[others.NAME]``; each ``[[case]]`` says what differs from it (from
the other one that it is ``like``), whether it is allowed, and ``by`` which rules exactly. A request that does not fit
the schema is refused for another reason than a rule, so a misspelt word in a table cannot pass for an expected refusal.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from privacy.errors import ConfigError
from privacy.policy import shipped
from privacy.policy.engine import Policy, Request, Value, Verdict
from privacy.toml_document import parse_toml

_HINT = "collegium site policy show policy-tests-hospital.toml prints one that works."


@dataclass(frozen=True)
class Case:
    """A request, and what is expected: the answer, and the ids of all rules that decide it."""

    name: str
    request: Request
    allowed: bool
    by: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """A case, and what a policy answered."""

    case: Case
    verdict: Verdict

    @property
    def holds(self) -> bool:
        """Whether the answer and its reasons are those expected."""
        return self.verdict.allowed == self.case.allowed and set(self.verdict.reasons) == set(self.case.by)


def parse(text: str) -> tuple[Case, ...]:
    """Reads a table.

    Raises: ConfigError: It is no TOML, or not in the format.
    """
    table = parse_toml(text, "the table of requests", hint=_HINT)
    odd = best_match(_validator().iter_errors(table))
    if odd is not None:
        where = ".".join(str(part) for part in odd.absolute_path) or "the top level"
        raise ConfigError(f"the table of requests: at {where[:120]}: {odd.message[:160]}", hint=_HINT)
    return tuple(
        Case(case["name"], _request(_base(table, case), case), case["allowed"], tuple(case["by"]))
        for case in table["case"]
    )


def ask(policy: Policy, cases: tuple[Case, ...]) -> tuple[Row, ...]:
    """Puts every request to a policy."""
    return tuple(Row(case, policy.decide(case.request)) for case in cases)


@cache
def _validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(shipped.read("policy-tests-v1.json")))


def _base(table: Mapping[str, Any], case: Mapping[str, Any]) -> Mapping[str, Any]:
    others, like = table.get("others", {}), case.get("like")
    if like is not None and like not in others:
        raise ConfigError(f"the table of requests: there is no [others.{like}]", hint=_HINT)
    base: Mapping[str, Any] = table["request"] if like is None else others[like]
    return base


def _request(base: Mapping[str, Any], case: Mapping[str, Any]) -> Request:
    principal, resource = (case.get(name, base[name]) for name in ("principal", "resource"))
    return Request(
        (principal[0], principal[1]),
        case.get("action", base["action"]),
        (resource[0], resource[1]),
        _values(base["context"], case.get("context", {})),
        _values(base.get("attributes", {}), case.get("attributes", {})),
        tuple(case.get("roles", base.get("roles", ()))),
    )


def _values(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Value]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in {**base, **changes}.items()}
