"""The claim about release paths: made from statements, and every way to say more than was found."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from privacy.audit import canonical, conformance_claim, schemas
from privacy.audit.answers import CheckedClaim
from privacy.audit.statement import Statement
from privacy.conformance.path import Arithmetics, Placement
from privacy.conformance.results import BY_CHANCE, Result, certain, chance
from privacy.conformance.statistics import Measured
from privacy.conformance.tests import DRAWS, Conformance, defects, error_of_each, expected
from privacy.errors import ConfigError
from tests.privacy.audit import sample

GOOD = {"noise shape": 0.002, "neighbouring entries": -0.001, "successive releases": 0.002}
POISSON = {"type": "poisson", "rate": "0.1"}


def result(test: str, name: str, error: float) -> Result:
    if name not in BY_CHANCE:
        return certain(test, name, 3, 0.0)
    statistic = GOOD.get(name, 1.001)
    return chance(test, name, Measured(DRAWS[name], statistic, BY_CHANCE[name](DRAWS[name], statistic)), error)


def found(
    placement: Placement = "local", path: Arithmetics = "integer", *, poisson: bool = False, noised: bool = True
) -> Conformance:
    names = sorted(expected(placement, path, poisson=poisson, noised=noised))
    tests = tuple(result(test, name, error_of_each(poisson=poisson)) for test, name in names)
    return Conformance(placement, path, tests, tuple((each, True) for each in defects(noised=noised)))


def said(*conformances: Conformance) -> bytes:
    return canonical.dumps([each.to_json() for each in conformances])


def predicate(*, poisson: bool = False, central: bool = False) -> dict[str, Any]:
    body = sample.predicate()
    body["claims"] = [claim for claim in body["claims"] if claim["id"] != conformance_claim.CLAIM]
    (epsilon,) = (claim for claim in body["claims"] if claim["id"].startswith("privacy.epsilon"))
    if poisson:
        for entry in epsilon["sites"]:
            entry["events"][0]["sampling"] = POISSON
    server: bytes | None = None
    statement = said(found(poisson=poisson))
    if central:
        epsilon.update(id="privacy.epsilon.site", placement="central", unit="site")
        epsilon["sites"] = [{**epsilon["sites"][0], "site": "server"}]
        statement, server = said(found("central", noised=False)), said(found("central"))
    claim = conformance_claim.claim_of(dict.fromkeys(sample.N_TRAIN, statement), server)
    body["claims"].append(claim)
    return body


def check(body: dict[str, Any]) -> CheckedClaim:
    return conformance_claim.check(Statement("model", "0" * 64, body))


def claim_in(body: dict[str, Any]) -> dict[str, Any]:
    claim: dict[str, Any] = body["claims"][-1]
    return claim


@pytest.mark.parametrize(("poisson", "central"), [(False, False), (True, False), (False, True)])
def test_a_claim_made_from_statements_holds_and_fits_the_schema(poisson: bool, central: bool) -> None:
    body = predicate(poisson=poisson, central=central)
    schemas.check("privacy-audit-v1", claim_in(body), definition="conformance")
    answer = check(body)
    assert (answer.verdict, answer.kind, answer.id) == ("holds", "measured", "conformance.release"), answer.why
    paths, n_defects = (5, 8) if central else (4, 16)
    assert f"{paths} release paths passed" in answer.why
    assert f"{n_defects} defects made on purpose were found" in answer.why


def test_without_a_release_path_nothing_is_claimed() -> None:
    assert conformance_claim.claim_of(dict.fromkeys(sample.N_TRAIN, b"")) is None


def test_a_report_that_says_nothing_was_not_checked() -> None:
    body = predicate()
    body["claims"].pop()
    assert check(body).verdict == "unchecked"
    assert "does not say that any release path was tested" in check(body).why


@pytest.mark.parametrize("data", [b"[", b"{}", b"[{}]", b"[1]", b"[" + b" " * 70_000 + b"]"])
def test_what_is_no_statement_is_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        conformance_claim.claim_of({"va": data})


def at(body: dict[str, Any], name: str, site: int = 0) -> dict[str, Any]:
    return next(each for each in claim_in(body)["sites"][site]["tests"] if each["name"] == name)


def exact(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Has the noise debited as exact integers; returns the entries of the claim."""
    (epsilon,) = (claim for claim in body["claims"] if claim["id"] == "privacy.epsilon")
    for entry in epsilon["sites"]:
        entry["events"][0]["arithmetic"] = "integer_exact"
    entries: list[dict[str, Any]] = claim_in(body)["sites"]
    return entries


FORGERIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a ratio of halved noise": (
        lambda body: at(body, "noise scale").update(statistic="0.25"),
        "cleveland's A1, noise scale: the p-value is 0, not",
    ),
    "and its p-value": (
        lambda body: at(body, "noise scale").update(statistic="0.25", p_value="0", passed=False),
        "cleveland's A1, noise scale fails",
    ),
    "and that it passed": (
        lambda body: at(body, "noise scale").update(statistic="0.25", p_value="0"),
        "cleveland's A1, noise scale fails",
    ),
    "a p-value made larger": (
        lambda body: at(body, "noise shape", 2).update(p_value="0.99"),
        "switzerland's A2, noise shape: the p-value is",
    ),
    "a p-value left out": (lambda body: at(body, "noise shape").update(p_value=None), "the p-value is"),
    "fewer draws": (
        lambda body: at(body, "noise scale").update(n=10, statistic="1", p_value="0.880493"),
        "other draws, or another error",
    ),
    "no draws at all": (lambda body: at(body, "noise shape").update(n=0), "other draws, or another error"),
    "a lower error": (lambda body: at(body, "noise scale").update(threshold="0"), "other draws, or another error"),
    "a larger influence": (
        lambda body: at(body, "largest influence").update(statistic="1.41421356"),
        "cleveland's A4, largest influence fails",
    ),
    "and a wider limit": (
        lambda body: at(body, "largest influence").update(statistic="1.41421356", threshold="2"),
        "cleveland's A4, largest influence: another limit",
    ),
    "a chance that is none": (lambda body: at(body, "largest influence").update(p_value="0.5"), "another limit"),
    "a failure that is none": (
        lambda body: at(body, "repeated noise").update(passed=False),
        "is said to fail, and does not",
    ),
    "a test left out": (
        lambda body: claim_in(body)["sites"][0]["tests"].pop(),
        "cleveland did not make exactly the tests that belong to local noise: A8 events and noise calls",
    ),
    "a test of another name": (
        lambda body: at(body, "noise scale").update(name="noise"),
        "cleveland did not make exactly the tests",
    ),
    "a test made twice": (
        lambda body: claim_in(body)["sites"][0]["tests"].append(at(body, "noise scale")),
        "cleveland did not make exactly the tests",
    ),
    "a control left out": (
        lambda body: claim_in(body)["sites"][0]["controls"].pop(),
        "cleveland did not try exactly the defects",
    ),
    "a site left out": (lambda body: claim_in(body)["sites"].pop(), "va did not test its local noise"),
    "a site twice": (
        lambda body: claim_in(body)["sites"].append(copy.deepcopy(claim_in(body)["sites"][0])),
        "cleveland tested its local noise twice",
    ),
    "another place for the noise": (
        lambda body: claim_in(body)["sites"][0].update(placement="distributed"),
        "cleveland did not test its local noise",
    ),
    "another error of all": (lambda body: claim_in(body).update(family_error="0.001"), "the tests' error is 0.001"),
    "the float path for exact noise": (
        lambda body: exact(body)[0].update(path="float"),
        "cleveland tested the float path",
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_claim_that_says_more_than_was_found_fails(name: str) -> None:
    body, (forge, why) = predicate(), FORGERIES[name]
    forge(body)
    answer = check(body)
    assert answer.verdict == "fails"
    assert why in answer.why


def test_sampling_must_be_tested_where_it_is_what_was_paid_for() -> None:
    body, sampled = predicate(), predicate(poisson=True)
    body["claims"][-1] = claim_in(predicate())
    sampled["claims"][-1] = claim_in(body)
    assert check(sampled).verdict == "fails"
    assert "A6 batch sizes" in check(sampled).why


def test_a_site_that_answered_the_roll_call_and_no_round_may_be_there() -> None:
    body = predicate()
    claim_in(body)["sites"].append({**copy.deepcopy(claim_in(body)["sites"][0]), "site": "late"})
    assert check(body).verdict == "holds"


def test_the_server_must_test_what_it_adds() -> None:
    body = predicate(central=True)
    claim_in(body)["sites"].pop()
    assert check(body).why == "server did not test its central noise"


def test_a_control_that_did_not_fire_makes_it_inconclusive() -> None:
    body = predicate()
    claim_in(body)["sites"][1]["controls"][2]["fired"] = False
    answer = check(body)
    assert (answer.verdict, answer.why) == ("unchecked", "inconclusive: hungary did not find clipping off")
