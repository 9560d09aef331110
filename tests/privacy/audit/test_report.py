"""Signing: what contradicts itself is not signed, and each contradiction is also found in somebody else's report."""

from collections.abc import Callable
from typing import Any

import pytest

from privacy.audit import canonical, consistency, envelope, report, statement
from privacy.audit.verify import verify
from privacy.errors import ConfigError
from tests.privacy.audit import masked, sample

Edit = Callable[[dict[str, Any]], object]


def epsilon_claim(body: dict[str, Any]) -> dict[str, Any]:
    claim = body["claims"][1]
    assert isinstance(claim, dict)
    return claim


def dropped(body: dict[str, Any], claim_id: str) -> object:
    return body["claims"].pop([claim["id"] for claim in body["claims"]].index(claim_id))


# What is changed, and the claim that must then fail.
CONTRADICTIONS: dict[str, tuple[str, Edit]] = {
    "completed rounds": ("report.consistency", lambda b: b["run"].update(completed=14)),
    "skipped rounds": ("report.consistency", lambda b: b["rounds"][3].update(skipped=True)),
    "round listed twice": ("report.consistency", lambda b: b["rounds"][3].update(round=3)),
    "more rounds than planned": ("report.consistency", lambda b: b["run"].update(rounds=14)),
    "unfinished but called finished": ("report.consistency", lambda b: b["run"].update(rounds=16)),
    "finished before it started": ("report.consistency", lambda b: b["run"].update(finished="2026-11-22T14:03:04Z")),
    "no such day": ("report.consistency", lambda b: b["run"].update(started="2026-02-30T00:00:00Z")),
    "answered and missing": ("report.consistency", lambda b: b["rounds"][3]["answered"].append("switzerland")),
    "completed by nobody": ("report.consistency", lambda b: b["rounds"][3].update(answered=[])),
    "a silent site in the egress": ("report.consistency", lambda b: b["egress"].pop()),
    "a site twice in the egress": ("report.consistency", lambda b: b["egress"].append(b["egress"][0])),
    "a site scored twice": ("report.consistency", lambda b: b["utility"]["sites"].append(b["utility"]["sites"][0])),
    "a site left out twice": (
        "report.consistency",
        lambda b: b["utility"]["left_out"].append(b["utility"]["left_out"][0]),
    ),
    "privacy off with a claim": ("report.consistency", lambda b: b["protections"].update(record_dp=False)),
    "privacy on without a claim": ("report.consistency", lambda b: b["claims"].pop(1)),
    "an epsilon without a word of its ledgers": ("report.consistency", lambda b: dropped(b, "ledger.chain")),
    "an epsilon without a test of its noise": ("report.consistency", lambda b: dropped(b, "conformance.release")),
    "a test of noise without an epsilon": (
        "report.consistency",
        lambda b: (b["protections"].update(record_dp=False), dropped(b, "privacy.epsilon"), dropped(b, "ledger.chain")),
    ),
    "ledgers without an epsilon": (
        "report.consistency",
        lambda b: (
            b["protections"].update(record_dp=False),
            dropped(b, "privacy.epsilon"),
            dropped(b, "conformance.release"),
        ),
    ),
    "site privacy without a claim": ("report.consistency", lambda b: b["protections"].update(site_dp=True)),
    "distributed privacy without a claim": (
        "report.consistency",
        lambda b: b["protections"].update(distributed_dp=True),
    ),
    "secure aggregation without a claim": ("report.consistency", lambda b: b["protections"].update(secagg=True)),
    "mean": ("report.consistency", lambda b: b["utility"]["mean"].update(together="0.9000")),
    "interval above the score": (
        "report.consistency",
        lambda b: b["utility"]["sites"][0].update(interval=["0.9000", "1.0000"]),
    ),
    "interval upside down": ("report.consistency", lambda b: b["utility"]["sites"][0]["interval"].reverse()),
    "another model file": ("model.digest", lambda b: b["claims"][0].update(sha256="0" * 64)),
    "fewer executions than rounds": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b)["sites"][0]["events"][0].update(count=14),
    ),
    "no executions": ("privacy.epsilon", lambda b: epsilon_claim(b)["sites"][0]["events"].clear()),
    "more executions than budgeted": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b)["sites"][0]["events"][0].update(count=18),
    ),
    "budget below one a round": ("privacy.epsilon", lambda b: epsilon_claim(b).update(budget_executions=14)),
    "half the steps of every round": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b).update(executions_per_attempt=2, budget_executions=34),
    ),
    "a site without an epsilon": ("privacy.epsilon", lambda b: epsilon_claim(b)["sites"].pop()),
    "a site with two epsilons": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b)["sites"].append(epsilon_claim(b)["sites"][0]),
    ),
    "epsilon above the target": ("privacy.epsilon", lambda b: epsilon_claim(b).update(target_epsilon="0.9")),
    "planned above the target": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b)["sites"][0].update(planned_epsilon="1.0001"),
    ),
    "planned below what was spent": (
        "privacy.epsilon",
        lambda b: epsilon_claim(b)["sites"][0].update(planned_epsilon="0.9000"),
    ),
    "delta of one": ("privacy.epsilon", lambda b: epsilon_claim(b).update(delta="1")),
    "delta of zero": ("privacy.epsilon", lambda b: epsilon_claim(b).update(delta="0")),
    "clip of zero": ("privacy.epsilon", lambda b: epsilon_claim(b)["sites"][0].update(clip="0")),
    "two numbers of records": ("privacy.epsilon", lambda b: epsilon_claim(b)["sites"][0].update(n_train=1990)),
}


@pytest.mark.parametrize(("claim_id", "edit"), CONTRADICTIONS.values(), ids=CONTRADICTIONS.keys())
def test_a_contradiction_is_not_signed_and_is_found(claim_id: str, edit: Edit) -> None:
    body = sample.predicate()
    edit(body)
    with pytest.raises(ConfigError, match="contradicts itself"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
    verdict = verify(sample.forged(body), trusted={sample.KEY.public_key}, model_sha256=sample.MODEL_SHA256)
    assert verdict.authentic
    assert verdict.exit_code == 1
    assert claim_id in {claim.id for claim in verdict.claims if claim.verdict == "fails"}


def attempts(body: dict[str, Any]) -> Any:
    return body["claims"][-2]["attempts"]


def cohort(body: dict[str, Any]) -> Any:
    return body["claims"][-2]["cohorts"][0]


def opened(**changes: Any) -> dict[str, Any]:
    """An attempt whose sum was opened."""
    whole = {"survivors": sorted(sample.N_TRAIN), "regions": [{"holders": 4, "entries": 14}], "aborted": None}
    return {"round": 1, "attempt": 1, "cohort": 0, **whole, "model_root": "2" * 64, "ctx": "2" * 64, **changes}


MASKED_CONTRADICTIONS: dict[str, tuple[str, Edit]] = {
    "masked without being on": ("report.consistency", lambda b: b["protections"].update(secagg=False)),
    "no claim about rounds": ("report.consistency", lambda b: b["claims"].pop(-2)),
    "no claim about egress": ("report.consistency", lambda b: b["claims"].pop()),
    "an unmasked array": ("secagg.egress", lambda b: b["egress"][0].update(unmasked_arrays=1)),
    "a survivor did not answer": ("secagg.rounds", lambda b: b["rounds"][0]["answered"].remove("va")),
    "one who answered did not survive": ("secagg.rounds", lambda b: attempts(b)[0]["survivors"].remove("va")),
    "a round without attempts": ("secagg.rounds", lambda b: attempts(b).pop()),
    "attempts without a round": ("secagg.rounds", lambda b: attempts(b).append(opened(round=16))),
    "an attempt less": ("secagg.rounds", lambda b: attempts(b).pop(6)),
    "an attempt more": ("secagg.rounds", lambda b: b["rounds"][0].update(attempts=2)),
    "a numbering that begins at 2": ("secagg.rounds", lambda b: attempts(b)[0].update(attempt=2)),
    "attempts two rounds after the last": (
        "secagg.rounds",
        lambda b: (
            b["run"].update(rounds=17, status="stopped"),
            attempts(b).append(opened(round=17)),
        ),
    ),
    "another attempt after the sum": (
        "secagg.rounds",
        lambda b: [attempts(b).insert(6, attempts(b).pop(7)), *(attempts(b)[5 + n].update(attempt=n) for n in (1, 2))],
    ),
    "a last round whose numbering begins at 2": (
        "secagg.rounds",
        lambda b: (
            b["run"].update(rounds=16, status="stopped"),
            attempts(b).append(opened(round=16, attempt=2)),
        ),
    ),
    "an attempt twice": ("secagg.rounds", lambda b: attempts(b).insert(1, opened())),
    "attempts in another order": ("secagg.rounds", lambda b: attempts(b).insert(0, attempts(b).pop(1))),
    "attempts of a round in another order": ("secagg.rounds", lambda b: attempts(b).insert(6, attempts(b).pop(7))),
    "two sums of a round": (
        "secagg.rounds",
        lambda b: attempts(b).__setitem__(6, opened(round=7)),
    ),
    "a completed round without a sum": (
        "secagg.rounds",
        lambda b: attempts(b)[0].update(survivors=[], regions=[], cohort=None, model_root=None, ctx=None, aborted="x"),
    ),
    "a sum in a round that is skipped": (
        "secagg.rounds",
        lambda b: (b["rounds"][0].update(skipped=True), b["run"].update(completed=14, skipped=1)),
    ),
    "a sum without a model root": ("secagg.rounds", lambda b: attempts(b)[0].update(model_root=None)),
    "a sum without a cohort": ("secagg.rounds", lambda b: attempts(b)[0].update(cohort=None)),
    "a cohort that is not listed": ("secagg.rounds", lambda b: attempts(b)[0].update(cohort=1)),
    "a sum without a context": ("secagg.rounds", lambda b: attempts(b)[0].update(ctx=None)),
    "opened and aborted": ("secagg.rounds", lambda b: attempts(b)[0].update(aborted="x")),
    "aborted with survivors": ("secagg.rounds", lambda b: attempts(b)[6]["survivors"].append("va")),
    "one context for two attempts": (
        "secagg.rounds",
        lambda b: attempts(b)[1].update(ctx=attempts(b)[0]["ctx"]),
    ),
    "two survivors": (
        "secagg.rounds",
        lambda b: (
            attempts(b)[0].update(survivors=["hungary", "va"], regions=[{"holders": 2, "entries": 14}]),
            b["rounds"][0].update(answered=["hungary", "va"]),
        ),
    ),
    "a survivor twice": (
        "secagg.rounds",
        lambda b: attempts(b)[0]["survivors"].append("va"),
    ),
    "a survivor outside the cohort": ("secagg.rounds", lambda b: cohort(b)["sites"].remove("va")),
    "a cohort out of order": ("secagg.rounds", lambda b: cohort(b)["sites"].reverse()),
    "a part of the sites where all were promised": ("secagg.rounds", lambda b: b["claims"][-2].update(fixed_set=True)),
    "too many may collude": ("secagg.rounds", lambda b: cohort(b).update(n_c=2)),
    "a threshold that opens too much": ("secagg.rounds", lambda b: cohort(b).update(t=2)),
    "a floor below three": ("secagg.rounds", lambda b: cohort(b).update(min_survivors=2)),
    "a cover below three": ("secagg.rounds", lambda b: cohort(b).update(min_cover=2)),
}


@pytest.mark.parametrize(("claim_id", "edit"), MASKED_CONTRADICTIONS.values(), ids=MASKED_CONTRADICTIONS.keys())
def test_a_contradiction_about_masked_rounds_is_not_signed_and_is_found(claim_id: str, edit: Edit) -> None:
    body = masked.predicate()
    edit(body)
    with pytest.raises(ConfigError, match="contradicts itself"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
    verdict = verify(
        sample.forged(body),
        trusted={sample.KEY.public_key},
        model_sha256=sample.MODEL_SHA256,
        transcript=masked.signed_rounds(),
    )
    assert claim_id in {claim.id for claim in verdict.claims if claim.verdict == "fails"}


def test_a_skipped_round_has_aborted_attempts_only() -> None:
    body = masked.predicate()
    attempts(body)[0].update(survivors=[], regions=[], cohort=None, model_root=None, ctx=None, aborted="too few")
    away = [{"site": site, "reason": "too few"} for site in masked.SITES]
    body["rounds"][0].update(skipped=True, answered=[], missing=away)
    body["run"].update(completed=14, skipped=1)
    found = consistency.of_all(statement.decode(statement.encode(body, sample.MODEL_SHA256)))
    assert found == []


def test_a_run_that_is_stopped_may_leave_a_round_that_it_began() -> None:
    body = masked.predicate()
    body["run"].update(rounds=20, status="stopped")
    aborted: dict[str, Any] = {"cohort": None, "survivors": [], "regions": [], "model_root": None, "ctx": None}
    attempts(body).extend([{"round": 16, "attempt": 1, **aborted, "aborted": "too few"}, opened(round=16, attempt=2)])
    found = consistency.of_all(statement.decode(statement.encode(body, sample.MODEL_SHA256)))
    assert found == []


def test_a_site_is_named_in_every_round_as_long_as_it_can_be_asked() -> None:
    body = sample.predicate()
    listed = [entry for entry in body["rounds"] if entry["missing"]]
    for entry in (listed[0], body["rounds"][-1]):  # not in the last round either: after that, it answered no more
        entry.update(missing=[], answered=[site for site in entry["answered"] if site != "switzerland"])
    body["egress"] = [entry for entry in body["egress"] if entry["site"] != "va"]
    said = consistency.of_report(statement.Statement("", "", body))
    number = listed[0]["round"]
    assert next(one for one in said if "switzerland in" in one) == (
        f"nothing is said about switzerland in round {number}, and it answered later"
    )
    assert not [one for one in said if f"switzerland in round {len(body['rounds'])}" in one]
    assert "va took part but nothing is said about what left it" in said


def test_an_epsilon_above_the_target_is_named_as_such() -> None:
    body = sample.predicate()
    epsilon_claim(body)["sites"][0]["epsilon"] = "1.0001"
    decoded = statement.decode(statement.encode(body, sample.MODEL_SHA256))
    problems = consistency.of_epsilon(decoded, epsilon_claim(body))
    assert "cleveland claims epsilon 1.0001, more than the target 1" in problems


HONEST_VARIANTS: dict[str, Edit] = {
    "as it is": lambda _b: None,
    "stopped early": lambda b: b["run"].update(status="stopped", rounds=16),
    "no scores": lambda b: b["utility"].update(
        sites=[], left_out=[], mean=dict.fromkeys(b["utility"]["mean"]), baselines={"constant": None, "majority": None}
    ),
    "no losses": lambda b: [entry.update(loss=None) for entry in b["rounds"]],
    "area under the curve, without intervals": lambda b: (
        b["utility"].update(metric="auc"),
        [site.update(interval=None) for site in b["utility"]["sites"]],
    ),
    "a mean rounded the other way": lambda b: b["utility"]["mean"].update(together="0.8119"),
    "more words about limits": lambda b: (b["not_protected"].append("Nor x."), b["assumptions"].insert(0, "That y.")),
    "one moment": lambda b: b["run"].update(finished=b["run"]["started"]),
}


@pytest.mark.parametrize("edit", HONEST_VARIANTS.values(), ids=HONEST_VARIANTS.keys())
def test_honest_variants_are_signed_and_hold(edit: Edit) -> None:
    body = sample.predicate()
    edit(body)
    verdict = verify(
        sample.signed(body),
        trusted={sample.KEY.public_key},
        model_sha256=sample.MODEL_SHA256,
        ledgers=sample.ledgers_file(),
    )
    assert verdict.exit_code == 0, verdict.lines()


def test_another_signer_than_the_named_one_does_not_sign() -> None:
    with pytest.raises(ConfigError, match="another signer"):
        report.sign(sample.predicate(), sample.MODEL_SHA256, sample.OTHER_KEY)


def test_a_predicate_outside_its_schema_is_not_signed() -> None:
    body = sample.predicate()
    body["surprise"] = 1
    with pytest.raises(ConfigError, match="privacy-audit-v1"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)


def test_the_statement_is_in_toto_s() -> None:
    decoded = canonical.loads(envelope.decode(sample.signed()).payload, what="the statement")
    assert decoded["_type"] == "https://in-toto.io/Statement/v1"
    assert decoded["predicateType"] == "https://collegium.example/privacy-audit/v1"
    assert decoded["subject"] == [{"name": "model.safetensors", "digest": {"sha256": sample.MODEL_SHA256}}]


STATEMENTS: dict[str, Edit] = {
    "another type": lambda s: s.update(_type="https://in-toto.io/Statement/v0.1"),
    "another version": lambda s: s.update(predicateType="https://collegium.example/report/v2"),
    "no subject": lambda s: s.update(subject=[]),
    "two subjects": lambda s: s["subject"].append(s["subject"][0]),
    "another digest": lambda s: s["subject"][0].update(digest={"sha512": "0"}),
    "two digests": lambda s: s["subject"][0]["digest"].update(sha512="0"),
    "an annotated subject": lambda s: s["subject"][0].update(uri="x"),
    "an extra field": lambda s: s.update(extra=1),
    "a claim made twice": lambda s: s["predicate"]["claims"].__setitem__(1, s["predicate"]["claims"][0]),
    "an epsilon claimed twice": lambda s: s["predicate"]["claims"].__setitem__(0, s["predicate"]["claims"][1]),
    "an unknown claim": lambda s: s["predicate"]["claims"][1].update(id="privacy.other"),
    "a predicate of another schema": lambda s: s["predicate"].update(schema="collegium/report/v2"),
}


@pytest.mark.parametrize("edit", STATEMENTS.values(), ids=STATEMENTS.keys())
def test_any_other_statement_is_not_a_report(edit: Edit) -> None:
    body = canonical.loads(envelope.decode(sample.signed()).payload, what="the statement")
    edit(body)
    with pytest.raises(ConfigError):
        statement.decode(canonical.dumps(body))


def test_claims_may_come_in_any_order() -> None:
    body = sample.predicate()
    body["claims"].reverse()
    at_hand: dict[str, Any] = {"model_sha256": sample.MODEL_SHA256, "ledgers": sample.ledgers_file()}
    assert verify(sample.signed(body), self_signed=True, **at_hand).exit_code == 0


def test_a_report_that_leaves_nothing_unprotected_is_not_signed() -> None:
    body = sample.predicate()
    body["not_protected"] = []
    with pytest.raises(ConfigError, match="not_protected"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
