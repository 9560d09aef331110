"""Cedar's answers, and that everything but an explicit Allow is a refusal."""

import hashlib
from dataclasses import replace
from typing import Any

import cedarpy
import pytest

from privacy.errors import ConfigError
from privacy.policy import shipped
from privacy.policy.engine import NO_RULE, CedarPolicy, Policy, Request, Verdict
from privacy.policy.requests import training_request
from tests.privacy.policy.example import FACTS, POLICY

ASKED = training_request(FACTS)
PERMIT_ALL = '@id("all") permit (principal, action, resource);'


def decided(request: Request, text: str = POLICY) -> Verdict:
    policy: Policy = CedarPolicy(text, "site")
    return policy.decide(request)


def with_context(**changes: Any) -> Request:
    return replace(ASKED, context={**ASKED.context, **changes})


def without(name: str) -> Request:
    return replace(ASKED, context={key: value for key, value in ASKED.context.items() if key != name})


def test_a_permit_allows_and_is_named() -> None:
    verdict = decided(ASKED)
    assert (verdict.allowed, verdict.reasons) == (True, ("training",))
    assert verdict.policy == hashlib.sha256(POLICY.encode()).hexdigest()


def test_a_forbid_beats_every_permit() -> None:
    assert decided(with_context(cohort=3)).reasons == ("few",)
    assert not decided(with_context(cohort=3)).allowed


def test_all_deciding_rules_are_named_in_the_order_of_the_policy() -> None:
    assert decided(with_context(cohort=3, settings=())).reasons == ("few", "none")
    turned = "".join(reversed([part + ";" for part in POLICY.split(";")[:-1]]))
    assert decided(with_context(cohort=3, settings=()), turned).reasons == ("none", "few")


@pytest.mark.parametrize(
    "request_",
    [
        with_context(purpose="marketing"),
        replace(ASKED, principal=("Coordinator", "other")),
        replace(ASKED, principal=("Coordinator", 'hub"')),
        replace(ASKED, principal=("Coordinator", "hub\n")),
    ],
)
def test_what_no_rule_permits_is_refused(request_: Request) -> None:
    verdict = decided(request_)
    assert (verdict.allowed, verdict.reasons) == (False, (NO_RULE,))


NO_REQUESTS = {
    "missing word": without("cohort"),
    "unknown word": with_context(more=1),
    "text for a number": with_context(cohort="5"),
    "true for a number": with_context(cohort=True),
    "number for a truth": with_context(secagg=1),
    "fraction": with_context(cohort=5.0),
    "beyond 64 bits": with_context(cohort=2**63),
    "not a number": with_context(cohort=float("nan")),
    "nothing": with_context(cohort=None),
    "entity for text": with_context(purpose={"__entity": {"type": "Asset", "id": "heart-disease"}}),
    "no JSON": with_context(cohort=object()),
    "half a character": with_context(strategy="\ud800"),
    "unknown action": replace(ASKED, action="read"),
    "unknown kind of principal": replace(ASKED, principal=("User", "hub")),
    "unknown kind of resource": replace(ASKED, resource=("Federation", "x")),
    "roles of a coordinator": replace(ASKED, roles=("operator",)),
    "missing attribute": replace(ASKED, attributes={"sensitivity": "x"}),
    "unknown attribute": replace(ASKED, attributes={**ASKED.attributes, "more": 1}),
    "no pair": replace(ASKED, principal="hub"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("request_", NO_REQUESTS.values(), ids=NO_REQUESTS)
def test_a_request_outside_the_schema_is_refused_even_by_a_policy_that_permits_all(request_: Request) -> None:
    verdict = decided(request_, PERMIT_ALL)
    assert not verdict.allowed
    assert verdict.reasons not in {(), (NO_RULE,), ("all",)}


def test_a_forbid_that_cannot_be_evaluated_is_a_refusal() -> None:
    """Cedar itself skips it and says Allow."""
    text = PERMIT_ALL + '@id("sum") forbid (principal, action, resource) when { context.cohort + context.rounds < 0 };'
    verdict = decided(with_context(rounds=2**63 - 1), text)
    assert not verdict.allowed
    assert "policy sum: integer overflow" in verdict.reasons[0]
    answer = cedarpy.is_authorized(
        {"principal": 'A::"a"', "action": 'Action::"t"', "resource": 'A::"a"', "context": {"n": 2**63 - 1}},
        "permit (principal, action, resource); forbid (principal, action, resource) when { context.n + 1 < 0 };",
        [],
    )
    assert answer.decision is cedarpy.Decision.Allow


def test_a_refusal_names_a_rule_that_failed_as_well() -> None:
    text = POLICY + '@id("sum") forbid (principal, action, resource) when { context.cohort + context.rounds < 0 };'
    first, second = decided(with_context(rounds=2**63 - 1, settings=()), text).reasons
    assert first == "none"
    assert "policy sum: integer overflow" in second


class Panic(BaseException):
    """As a panic in Rust arrives."""


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError(), Panic()])
def test_an_engine_that_fails_refuses(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise error

    policy = CedarPolicy(PERMIT_ALL, "site")
    monkeypatch.setattr(cedarpy, "is_authorized", fail)
    verdict = policy.decide(ASKED)
    assert not verdict.allowed
    assert verdict.reasons == (f"the policy engine failed: {type(error).__name__}",)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"decision": "Maybe", "diagnostics": {"reason": ["policy0"]}},
        {"decision": "NoDecision", "diagnostics": {"reason": ["policy0"]}},
        {"decision": "Allow", "diagnostics": {}},
        {"decision": "Allow", "diagnostics": {"reason": ["policy7"]}},
        {"decision": "Allow", "diagnostics": {"reason": ["policy0"], "errors": ["x"]}},
    ],
)
def test_an_odd_answer_of_the_engine_is_a_refusal(answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    policy = CedarPolicy(PERMIT_ALL, "site")
    monkeypatch.setattr(cedarpy, "is_authorized", lambda *_: cedarpy.AuthzResult(answer))
    assert not policy.decide(ASKED).allowed


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_it_still_can_be_interrupted(error: type[BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        raise error

    policy = CedarPolicy(PERMIT_ALL, "site")
    monkeypatch.setattr(cedarpy, "is_authorized", stop)
    with pytest.raises(error):
        policy.decide(ASKED)


def test_reasons_are_short_lines_whatever_a_stranger_writes() -> None:
    hostile = "\x1b[2J\n" + "x" * 10_000
    verdict = decided(with_context(**{hostile: 1}))
    assert not verdict.allowed
    for reason in verdict.reasons:
        assert len(reason) <= 200
        assert reason.isprintable()


UNUSABLE = {
    "no Cedar": ('@id("a")\npermit (principal, action);\n', "line 1", "missing the `resource`"),
    "second rule": (PERMIT_ALL + '\n\n@id("b")\nforbid (principal, action, resource) when { 1 << 2 };', "line 3", "<"),
    "no end": (PERMIT_ALL + '\n@id("b") forbid (principal, action, resource)', "line 2", "end of input"),
    "misspelt word": (
        PERMIT_ALL + '\n// comment; with "\n@id("b") forbid (principal, action, resource) when { context.cohrt < 4 };',
        "line 3",
        "`cohrt`",
    ),
    "text for a number": (
        '@id("a") permit (principal, action, resource) when { context.cohort < "4" };',
        "line 1",
        "expected Long but saw String",
    ),
    "unknown type": ('@id("a") permit (principal == User::"x", action, resource);', "line 1", "User"),
    "unknown action": ('@id("a") permit (principal, action == Action::"read", resource);', "line 1", "read"),
    "template": (PERMIT_ALL + '@id("b") forbid (principal == ?principal, action, resource);', "template", ""),
    "empty": ("", "no permit", ""),
    "comment": ("// permit (principal, action, resource);", "no permit", ""),
    "only forbids": ('@id("a") forbid (principal, action, resource);', "no permit", ""),
    "no id": ("\npermit (principal, action, resource);", "line 2", "no id"),
    "empty id": ("@id permit (principal, action, resource);", "line 1", "no id"),
    "odd id": ('@id("A b") permit (principal, action, resource);', "line 1", "no id"),
    "same id": (PERMIT_ALL + "\n" + PERMIT_ALL, "line 2", "no id"),
    "rule twice in one": ('@id("a;") permit (principal, action, resource);', "line 1", "no id"),
}


@pytest.mark.parametrize(("text", "where", "what"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_policy_that_cannot_be_used_is_refused_with_its_line(text: str, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as raised:
        CedarPolicy(text, "site")
    assert where in str(raised.value)
    assert what in str(raised.value)
    assert str(raised.value).isprintable()


def test_each_kind_has_its_own_schema() -> None:
    CedarPolicy(shipped.read("server.cedar"), "server")
    with pytest.raises(ConfigError):
        CedarPolicy(shipped.read("server.cedar"), "site")
    with pytest.raises(ConfigError):
        CedarPolicy(shipped.read("hospital.cedar"), "server")


def test_only_shipped_files_are_opened() -> None:
    with pytest.raises(ConfigError, match="is shipped"):
        shipped.read("../errors.py")
    assert all(shipped.read(name) for name in shipped.NAMES)
