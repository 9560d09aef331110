"""Claims that attacks support: what a truthful auditor writes holds, and no number of it can be bent."""

import copy
import math
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from typing import Any

import numpy as np
import pytest

from privacy.attacks.canaries import included
from privacy.attacks.gaussian_pair import shape_of
from privacy.audit import attack_claims, canary_file, schemas
from privacy.audit.answers import CheckedClaim
from privacy.audit.attack_claims import Compared, Defect, Evidence, Measurement, PathAudit, Scored
from privacy.audit.measured import black_box as black_box_module
from privacy.audit.statement import Statement
from tests.privacy.audit import sample

SEED = bytes(range(32))
M = 300
NOISE = float(sample.NOISE) / math.sqrt(17)


def report(*claims: dict[str, Any]) -> Statement:
    body = sample.predicate()
    body["claims"] += copy.deepcopy(list(claims))
    return Statement("model.safetensors", sample.MODEL_SHA256, body)


def checked(claim: dict[str, Any], canaries: bytes | None = None) -> CheckedClaim:
    (one,) = attack_claims.check(report(claim), canaries)
    assert one.id == claim["id"]
    assert one.kind == "measured"
    return one


def measured(
    rng: np.random.Generator, *, noise: float = NOISE, step: float = 1.0, repeated: bool = False
) -> Measurement:
    scores = step * included(SEED, M) + noise * rng.standard_normal(M)
    return Measurement(scores, shape_of(noise * rng.standard_normal(M)), repeated)


def controls(rng: np.random.Generator) -> dict[Defect, Measurement]:
    return {
        "noise halved": measured(rng, noise=NOISE / 20),
        "noise off": measured(rng, noise=1e-9),
        "clipping off": measured(rng, step=20),
        "seed fixed": measured(rng, repeated=True),
    }


def audited(**changes: Any) -> Evidence:
    rng = np.random.default_rng(1)
    found = {"correct": measured(rng), "controls": controls(rng), **changes}
    audit = PathAudit("local", "float", Decimal(str(NOISE)), found["correct"], found["controls"])
    return attack_claims.one_run_claim([audit], seed=SEED)


@cache
def honest() -> Evidence:
    return audited()


def scored(gap: float, noise: float) -> Scored:
    rng = np.random.default_rng(2)
    return Scored("a model", gap * included(SEED, M) + noise * rng.standard_normal(M))


@cache
def black_box() -> Evidence:
    epsilons = report().epsilons
    return attack_claims.black_box_claim(scored(0, 1), scored(9, 1), records=400, epsilons=epsilons, seed=SEED)


@cache
def membership() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    sites = {
        site: Compared(rng.standard_normal(sample.N_TRAIN[site]), rng.standard_normal(sample.N_TEST[site]))
        for site in sample.N_TRAIN
    }
    control = Compared(rng.standard_normal(200) + 3, rng.standard_normal(100))
    return attack_claims.membership_claim(sites, control, epsilons=report().epsilons)


@cache
def one_shot() -> dict[str, Any]:
    rng = np.random.default_rng(4)
    protected, control = rng.normal(0, 0.01, 100), rng.normal(0.1, 0.01, 100)
    return attack_claims.one_shot_claim(protected, control, dimension=10_000, epsilons=[], delta=Decimal("0.001"))


@cache
def inversion() -> dict[str, Any]:
    record = np.linspace(0.1, 0.9, 4)
    guess = np.full(4, 0.5)
    views: Any = {"clear": record + 1e-9, "noised": np.array([1.0, 0.0, 1.0, 0.0])}
    return attack_claims.inversion_claim(
        form="table", fields=["a", "b", "c", "d"], width=1, record=record, guess=guess, views=views
    )


HONEST: dict[str, Callable[[], tuple[dict[str, Any], bytes | None]]] = {
    "one run": lambda: (honest().claim, honest().lines),
    "black box": lambda: (black_box().claim, black_box().lines),
    "membership": lambda: (membership(), None),
    "one shot": lambda: (one_shot(), None),
    "inversion": lambda: (inversion(), None),
}


@pytest.mark.parametrize("name", HONEST)
def test_what_an_honest_auditor_writes_holds(name: str) -> None:
    claim, lines = HONEST[name]()
    schemas.check("privacy-audit-v1", report(claim).predicate)
    found = checked(claim, lines)
    assert found.verdict == "holds", found.why


def test_claims_of_one_report_share_the_file() -> None:
    both = report(honest().claim, black_box().claim, membership())
    lines = honest().lines + black_box().lines
    assert [one.verdict for one in attack_claims.check(both, lines)] == ["holds"] * 3


def test_without_the_scores_counts_stay_unchecked() -> None:
    found = checked(honest().claim)
    assert found.verdict == "unchecked"
    assert canary_file.CANARIES_FILE in found.why


def test_a_report_without_such_claims_gets_no_line() -> None:
    assert attack_claims.check(report(), None) == []


def numbers(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Returns where numbers and answers stand in a claim."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in numbers(item, (*path, key))]
    if isinstance(value, list):
        return [found for index, item in enumerate(value[:1]) for found in numbers(item, (*path, index))]
    return [path]


def bent(value: Any) -> Any:
    """Returns another value that the schema might allow in the same place."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str() if value in {"no violation", "violation"}:
            return "inconclusive"
        case str() if len(value) == 64:
            return value[:-1] + ("0" if value[-1] != "0" else "1")
        case str() if value.replace(".", "").replace("-", "").isdigit():
            places = len(value.partition(".")[2])
            return str(Decimal(value) + Decimal(2).scaleb(-min(places, 4)))
    return None


def is_given(claim: dict[str, Any], path: tuple[Any, ...]) -> bool:
    """Says whether nothing in the claim contradicts another value: what was seen, or was not kept."""
    own = {"records", "roc", "sd"} if claim["id"] != "audit.one_shot" else {"canaries"}
    return bool(own & set(path)) or path[-1] == "repeated"


@pytest.mark.parametrize("name", HONEST)
def test_no_number_can_be_bent(name: str) -> None:
    claim, lines = HONEST[name]()
    tried = 0
    for path in numbers(claim):
        edited = copy.deepcopy(claim)
        *parents, last = path
        place = edited
        for step in parents:
            place = place[step]
        other = bent(place[last])
        if other is None or is_given(claim, path):
            continue
        place[last] = other
        tried += 1
        found = checked(edited, lines)
        assert found.verdict == "fails", (path, other, found.why)
    assert tried >= 7


def test_a_bound_above_the_formal_value_fails_the_claim() -> None:
    rng = np.random.default_rng(5)
    evidence = audited(correct=measured(rng, noise=NOISE / 20))
    found = checked(evidence.claim, evidence.lines)
    assert evidence.claim["paths"][0]["verdict"] == "violation"
    assert found.verdict == "fails"
    assert "measured above the formal value" in found.why


def test_repeated_noise_fails_the_claim() -> None:
    evidence = audited(correct=measured(np.random.default_rng(6), repeated=True))
    assert checked(evidence.claim, evidence.lines).verdict == "fails"


def test_a_control_that_is_not_found_out_leaves_it_unchecked() -> None:
    rng = np.random.default_rng(7)
    evidence = audited(controls={**controls(rng), "noise off": measured(rng)})
    found = checked(evidence.claim, evidence.lines)
    assert found.verdict == "unchecked"
    assert "noise off was not found out" in found.why


def test_noise_that_is_not_gaussian_is_judged_without_the_pair() -> None:
    rng = np.random.default_rng(8)
    odd = Measurement(measured(rng).scores, shape_of(rng.laplace(size=4000)), repeated=False)
    evidence = audited(correct=odd)
    assert evidence.claim["paths"][0]["measurement"]["lower"]["pair_999"] is None
    found = checked(evidence.claim, evidence.lines)
    assert found.verdict == "holds"
    assert "did not pass for Gaussian" in found.why


def test_no_power_is_said() -> None:
    body = report()
    weak = [{**body.epsilons[0], "sites": body.epsilons[0]["sites"][:1]}]
    weak[0]["sites"][0]["events"][0] |= {"noise_multiplier": "0.9", "count": 3}
    evidence = attack_claims.black_box_claim(scored(0, 1), scored(9, 1), records=400, epsilons=weak, seed=SEED)
    assert Decimal(evidence.claim["formal"]) > 8
    assert "no power" in black_box_module.summary(evidence.claim)


def test_other_noise_than_the_run_names_is_not_an_audit_of_it() -> None:
    rng = np.random.default_rng(1)
    audit = PathAudit("local", "float", Decimal(str(NOISE * 2)), measured(rng, noise=NOISE * 2), controls(rng))
    evidence = attack_claims.one_run_claim([audit], seed=SEED)
    assert "name other noise" in checked(evidence.claim, evidence.lines).why


def test_other_scores_are_found_out() -> None:
    edited = honest().lines.replace(b'"scores":["', b'"scores":["1', 1)
    found = checked(honest().claim, edited)
    assert found.verdict == "fails"
    assert "not those that were signed" in found.why
    assert checked(honest().claim, b"").verdict == "fails"
    assert checked(honest().claim, b"\xff").verdict == "fails"


def test_counts_that_the_scores_do_not_give_are_found_out() -> None:
    claim = copy.deepcopy(honest().claim)
    edited = (
        honest()
        .lines.replace(b"local/float/correct", b"local/float/ctrl")
        .replace(b"local/float/seed fixed", b"local/float/correct")
        .replace(b"local/float/ctrl", b"local/float/seed fixed")
    )
    claim["scores_sha256"] = canary_file.digest(edited)
    found = checked(claim, edited)
    assert found.verdict == "fails"
    assert "right guesses" in found.why


def test_membership_above_its_ceiling_fails_the_claim() -> None:
    rng = np.random.default_rng(9)
    sites = {"cleveland": Compared(rng.standard_normal(199) + 4, rng.standard_normal(104))}
    claim = attack_claims.membership_claim(sites, sites["cleveland"], epsilons=report().epsilons)
    assert claim["verdict"] == "violation"
    assert checked(claim).verdict == "fails"


def test_a_membership_control_that_remembers_nothing_is_inconclusive() -> None:
    rng = np.random.default_rng(10)
    same = Compared(rng.standard_normal(199), rng.standard_normal(104))
    claim = attack_claims.membership_claim({"cleveland": same}, same, epsilons=report().epsilons)
    assert checked(claim).verdict == "unchecked"


def test_an_estimate_is_never_a_violation() -> None:
    rng = np.random.default_rng(11)
    high, higher = rng.normal(0.3, 0.01, 100), rng.normal(0.6, 0.01, 100)
    claim = attack_claims.one_shot_claim(high, higher, dimension=10_000, epsilons=[], delta=Decimal("0.001"))
    assert checked(claim).verdict == "holds"
    assert "an estimate, not a bound" in checked(claim).why
    turned = attack_claims.one_shot_claim(higher, high, dimension=10_000, epsilons=[], delta=Decimal("0.001"))
    assert checked(turned).verdict == "unchecked"


@pytest.mark.parametrize(
    ("view", "verdict"), [([0.1, 0.4, 0.6, 0.9], "violation"), ([0.9, 0.5, 0.5, 0.1], "no violation")]
)
def test_a_protected_view_may_not_beat_the_guess(view: list[float], verdict: str) -> None:
    record = np.array([0.1, 0.4, 0.6, 0.9])
    claim = attack_claims.inversion_claim(
        form="image",
        fields=[],
        width=2,
        record=record,
        guess=np.full(4, 0.5),
        views={"clear": record, "noised": np.array(view)},
    )
    assert claim["verdict"] == verdict
    assert checked(claim).verdict == ("fails" if verdict == "violation" else "holds")


def test_an_inversion_that_fails_in_the_clear_shows_nothing() -> None:
    record = np.array([0.1, 0.4, 0.6, 0.9])
    blind = np.array([0.9, 0.5, 0.5, 0.1])
    claim = attack_claims.inversion_claim(
        form="image", fields=[], width=2, record=record, guess=np.full(4, 0.5), views={"clear": blind, "noised": blind}
    )
    assert checked(claim).verdict == "unchecked"


def test_views_belong_to_protections_that_were_on() -> None:
    record = np.array([0.1, 0.9])
    claim = attack_claims.inversion_claim(
        form="image",
        fields=[],
        width=2,
        record=record,
        guess=np.full(2, 0.5),
        views={"clear": record, "masked": 1 - record},
    )
    assert "masked none" in checked(claim).why


def test_counts_that_no_strategy_gives_are_found_out_without_the_scores() -> None:
    claim = copy.deepcopy(black_box().claim)
    claim["protected"]["guesses"][0]["guesses"] += 1
    assert "cannot be of 300 canaries" in checked(claim).why
    claim = copy.deepcopy(black_box().claim)
    claim["protected"]["guesses"][0]["fraction"] = "0.03"
    assert "fixed beforehand" in checked(claim).why


def test_the_gaussian_pair_alone_can_break_a_claim() -> None:
    evidence = audited(correct=measured(np.random.default_rng(12), noise=NOISE / 2.5))
    path = evidence.claim["paths"][0]
    lower = {name: Decimal(bound) for name, bound in path["measurement"]["lower"].items()}
    assert lower["steinke"] < Decimal(path["formal"]) < lower["pair_999"]
    assert path["verdict"] == "violation"


def test_the_pair_cannot_be_dropped_while_noise_passes_for_gaussian() -> None:
    claim = copy.deepcopy(honest().claim)
    measurement = claim["paths"][0]["measurement"]
    measurement["pair"] = measurement["lower"]["pair"] = measurement["lower"]["pair_999"] = None
    assert "exactly if noise passes" in checked(claim, honest().lines).why


def test_every_broken_copy_has_to_be_measured() -> None:
    claim = copy.deepcopy(honest().claim)
    claim["paths"][0]["controls"].pop()
    assert "not every broken copy" in checked(claim).why
