"""Questions, attacks and risks that reviewers, regulators and officers ask about: answered from claims alone."""

from typing import Any

import pytest

from privacy.audit import assessment
from privacy.audit.assessment import Answer
from tests.privacy.audit import masked, promises, sample

Body = dict[str, Any]


@pytest.fixture
def audited() -> Body:
    return sample.audited_predicate()


def answer(body: Body, words: str) -> tuple[Answer, str]:
    (found,) = [one for one in assessment.hazards(body) if words in one.question]
    return found.answer, found.evidence


def test_questions_go_from_the_parameter_down_to_what_it_rests_on(audited: Body) -> None:
    layers = list(dict.fromkeys(one.layer for one in assessment.hazards(audited)))
    assert layers == [
        "Privacy parameter and unit",
        "Algorithms and their correctness",
        "Utility and bias",
        "Trust model and exposure of data",
        "Implementation, access and security",
    ]


def test_a_yes_names_what_bears_it_out(audited: Body) -> None:
    for body in (audited, promises.predicate(), masked.predicate(), sample.plain_predicate()):
        ids = {claim["id"] for claim in body["claims"]}
        for one in assessment.hazards(body):
            if one.answer == "yes":
                assert set(one.evidence.split(", ")) <= ids | {"the scores of this report", "protections"}, one.question


def test_what_was_measured_is_a_yes_only_with_a_verdict_behind_it(audited: Body) -> None:
    assert answer(audited, "attacked with canaries") == ("yes", "audit.one_run")
    assert answer(sample.predicate(), "attacked with canaries") == ("no", "–")
    (claim,) = [one for one in audited["claims"] if one["id"] == "audit.one_run"]
    for verdict in ("inconclusive", "violation"):
        claim["paths"][0]["verdict"] = verdict
        assert answer(audited, "attacked with canaries") == ("no", "audit.one_run")


@pytest.mark.parametrize(("part", "field"), [("tests", "passed"), ("controls", "fired")])
def test_tests_count_only_if_all_passed_and_none_was_blind(audited: Body, part: str, field: str) -> None:
    assert answer(audited, "tested before it was used")[0] == "yes"
    (claim,) = [one for one in audited["claims"] if one["id"] == "conformance.release"]
    claim["sites"][3][part][0][field] = False
    assert answer(audited, "tested before it was used")[0] == "no"


def test_without_privacy_most_questions_have_no_answer_and_the_first_has_a_plain_one() -> None:
    body = sample.plain_predicate()
    assert answer(body, "bounded by an ε") == ("no", "–")
    assert answer(body, "Can anybody recompute")[0] == "n/a"
    assert answer(body, "single site's update") == ("no", "–")


def test_the_unit_and_the_place_of_the_noise_decide() -> None:
    assert answer(promises.predicate("local"), "all records of a person")[0] == "no"
    assert answer(promises.predicate("central"), "all records of a person")[0] == "yes"
    assert answer(promises.predicate("central"), "hold against the server")[0] == "no"
    assert answer(promises.predicate("distributed"), "hold against the server")[0] == "yes"
    assert answer(promises.predicate("local"), "over all runs")[0] == "yes"
    assert answer(sample.predicate(), "over all runs")[0] == "no"
    assert answer(promises.predicate("local"), "exact integers")[0] == "yes"
    assert answer(sample.predicate(), "exact integers")[0] == "no"


def test_attacks_that_were_not_tried_say_so(audited: Body) -> None:
    results = {one.name.split(":")[0]: one.result for one in assessment.attacks(audited)}
    assert results["Reconstruction"] == "one update turned back into a record: no violation"
    assert results["Membership inference"].count("no violation") == 3
    for name in ("Model inversion", "Attribute inference", "Extraction and regurgitation"):
        assert results[name] == "not tested"
    assert {one.result for one in assessment.attacks(sample.predicate())} == {"not tested"}


def test_risks_say_what_remains(audited: Body) -> None:
    rows = assessment.dpia(audited)
    assert "a 50 % suspicion about one record may rise to 73 %" in rows[0].residual
    assert "ε ≤ 0.9646 at δ = 0.001" in rows[0].measure
    assert all(row.residual for row in rows)
    bare = assessment.dpia(sample.plain_predicate())
    assert bare[0].measure == "none: no differential privacy was applied"
    assert bare[1].residual == "all of it"


def test_nothing_is_called_anonymous(audited: Body) -> None:
    for body in (audited, promises.predicate(), sample.plain_predicate()):
        assert "anonym" not in repr((assessment.hazards(body), assessment.attacks(body), assessment.dpia(body))).lower()
