"""Releases in a report: their price, what contradicts them, and that nobody can overlook what left unprotected."""

import copy
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from privacy.audit import assessment, consistency, crossings, schemas
from privacy.audit.html import page, page_crossings
from privacy.audit.statement import Statement
from privacy.audit.verify import verify
from privacy.dp.accounting import epsilon
from privacy.dp.events import FULL_BATCH, GaussianEvent, Relation
from privacy.errors import ConfigError
from tests.privacy.audit import masked, sample

Body = dict[str, Any]
NOISE = {"clip": Decimal(4), "noise": Decimal(5), "most": 40, "released": 12, "delta": Decimal("0.001")}


def cut(*unsafe: str, private: bool = True) -> Body:
    """The masked sample as the run of a cut model; the sites in ``unsafe`` released without noise."""
    body = copy.deepcopy(masked.predicate(private=private))
    what = ["activations", "gradients"]
    body["releases"] = [
        crossings.unsafe_entry(site, "centre", what, "invented patients")
        if site in unsafe
        else crossings.entry(site, "centre", what, **NOISE)  # type: ignore[arg-type]
        for site in masked.SITES
    ]
    return sample.told(body)


def problems(body: Body) -> list[str]:
    schemas.check("privacy-audit-v1", body)
    return list(crossings.contradictions(Statement("model.safetensors", "", body)))


@pytest.mark.parametrize(
    ("noise", "expected"),
    [("1", (10.7, 48.8, 166)), ("2", (4.7, 19, 57)), ("5", (1.7, 6.2, 16.5)), ("20", (0.38, 1.3, 3.2))],
)
def test_the_price_is_that_of_the_published_table(noise: str, expected: tuple[float, ...]) -> None:
    """Epsilon at delta 1e-5 for 1, 10 and 50 releases of a record, computed beforehand and by hand."""
    found = [crossings.price(Decimal(noise), times, Decimal("1e-5")) for times in (1, 10, 50)]
    assert found == pytest.approx(expected, rel=0.03)
    assert crossings.price(Decimal(noise), 0, Decimal("1e-5")) == 0


def test_a_report_of_a_cut_model_agrees_with_itself() -> None:
    for body in (cut(), cut(*masked.SITES), cut(masked.SITES[0])):
        assert problems(body) == []
        assert consistency.of_all(Statement("model.safetensors", sample.MODEL_SHA256, body)) == []
    assert problems(masked.predicate()) == []


LIES: dict[str, tuple[Callable[[Body], Any], str]] = {
    "a cheaper release": (lambda b: b["releases"][0].update(epsilon="0.1000"), "costs another epsilon"),
    "a dearer one": (lambda b: b["releases"][0].update(epsilon="9.0000"), "costs another epsilon"),
    "less noise": (lambda b: b["releases"][0].update(noise="1"), "costs another epsilon"),
    "more often": (lambda b: b["releases"][0].update(released=24), "costs another epsilon"),
    "another delta": (lambda b: b["releases"][0].update(delta="0.1"), "costs another epsilon"),
    "no delta": (lambda b: b["releases"][0].update(delta="1"), "a delta that is none"),
    "no clip": (lambda b: b["releases"][0].update(clip="0"), "has no clip"),
    "too often": (lambda b: b["releases"][0].update(most=11), "more than the 11"),
    "hardly any noise": (lambda b: b["releases"][0].update(noise="0.000000000000000001"), "release of"),
    "of a stranger": (lambda b: b["releases"][0].update(owner="atlantis"), "which is no site of this run"),
    "to itself": (lambda b: [one.update(to=one["owner"]) for one in b["releases"]], "to itself"),
    "to two holders": (lambda b: b["releases"][1].update(to="elsewhere"), "a run has one"),
    "one left out": (lambda b: b["releases"].pop(), "no release says what the holder was shown"),
    "twice": (lambda b: b["releases"].append(b["releases"][-1]), "one stands twice"),
    "unsorted": (lambda b: b["releases"].reverse(), "not sorted"),
    "what, unsorted": (lambda b: b["releases"][0]["what"].reverse(), "is not sorted"),
    "without masks": (lambda b: b["protections"].update(secagg=False), "secure aggregation was off"),
}


@pytest.mark.parametrize(("lie", "why"), LIES.values(), ids=LIES)
def test_a_lie_about_a_release_is_found(lie: Callable[[Body], Any], why: str) -> None:
    body = cut()
    lie(body)
    assert any(why in problem for problem in problems(body))


def test_an_entry_is_either_noised_or_unsafe() -> None:
    for change in ({"unsafe": "and yet"}, {"clip": None}):
        body = cut()
        body["releases"][0].update(change)
        body["releases"][0] = {key: value for key, value in body["releases"][0].items() if value is not None}
        with pytest.raises(ConfigError, match="releases/0"):
            problems(body)


def test_what_left_unprotected_stands_in_red_at_the_top_with_its_reason() -> None:
    drawn = page.render(sample.signed(cut(*masked.SITES))).decode()
    alarm = drawn.index("left their organisation unprotected")
    assert drawn.rindex('<div class="alarm"', 0, alarm) < alarm < drawn.index("Who is protected")
    for place in (drawn[alarm:], drawn[drawn.index('id="crossings"') :]):
        assert "showed centre the activations and gradients of records as they are: invented patients" in place
    assert '<span class="not">' in drawn[drawn.index('id="crossings"') :]
    assert "but for the holder of the cut model" in drawn
    quiet = page.render(sample.signed(cut())).decode()
    assert "left their organisation unprotected" not in quiet
    assert "12 of 40" in quiet
    plain = page.render(sample.signed(masked.predicate())).decode()
    assert "cut model" not in plain


def test_the_verifier_says_it_in_its_lines() -> None:
    verdict = verify(sample.signed(cut("va")), self_signed=True, transcript=masked.signed_rounds())
    said = {claim.id: claim.why for claim in verdict.claims}
    assert "4 releases of values of single records, 1 unprotected" in said["report.consistency"]
    assert "but for the holder of the cut model's piece" in said["privacy.epsilon"]


def split() -> Body:
    """As `cut`, with the release of the first site in two entries."""
    body, (site, *_) = cut(), masked.SITES
    half = {**NOISE, "released": 6}
    parts = [crossings.entry(site, "centre", [what], **half) for what in ("activations", "gradients")]  # type: ignore[arg-type]
    body["releases"] = [*parts, *body["releases"][1:]]
    return body


def test_two_releases_cost_together_what_one_release_of_both_costs() -> None:
    assert problems(split()) == []
    one, two = (crossings.together(body) for body in (cut(), split()))
    assert [each["epsilon"] for each in two] == [each["epsilon"] for each in one]
    assert one[0]["epsilon"] == cut()["releases"][0]["epsilon"]
    apart = max(Decimal(each["epsilon"]) for each in split()["releases"][:2])
    assert apart < Decimal(two[0]["epsilon"])
    (risk,) = [each for each in assessment.dpia({**split(), "releases": split()["releases"][:2]}) if "cut" in each.risk]
    assert f"ε ≤ {two[0]['epsilon']} for one record" in risk.measure
    drawn = page.render(sample.signed(split())).decode()
    assert drawn.count("all with noise together") == 1
    assert f"{two[0]['epsilon']} at δ = 0.001" in drawn[drawn.index("all with noise together") :]
    assert "all with noise together" not in page.render(sample.signed(cut())).decode()


def test_releases_of_unlike_noise_and_delta_are_added_up_at_the_smallest_delta() -> None:
    body = split()
    body["releases"][0].update(delta="0.0001", noise="7")
    (found, *_) = crossings.together(body)
    events = [GaussianEvent(Decimal(noise) / 2, FULL_BATCH, 6) for noise in (7, 5)]
    assert (found["to"], found["delta"], found["releases"]) == (["centre"], "0.0001", 2)
    bound = epsilon(events, Decimal("0.0001"), Relation.REPLACE_SPECIAL, "RDP")
    assert 0 <= Decimal(found["epsilon"]) - Decimal(bound) < Decimal("0.001")


@pytest.mark.parametrize("lie", [{"noise": "0"}, {"delta": "1"}], ids=str)
def test_what_nobody_can_price_has_no_bound_and_is_drawn_all_the_same(lie: Body) -> None:
    body = split()
    body["releases"][0].update(lie)
    body["releases"][1].update(lie)
    assert crossings.together(body)[0]["epsilon"] is None
    view = page_crossings.view(Statement("model.safetensors", "", body))
    assert view is not None
    assert "no bound" in view["table"].rows[-1]
    (risk,) = [each for each in assessment.dpia(body) if "cut" in each.risk]
    assert "ε ≤ Infinity" in risk.measure


def test_a_reviewer_is_told() -> None:
    def answer(body: Body) -> str:
        (found,) = [one for one in assessment.hazards(body) if "cut model" in one.question]
        return found.answer

    assert (answer(cut()), answer(cut("va"))) == ("yes", "no")
    (risk,) = [one for one in assessment.dpia(cut("va")) if "cut model" in one.risk]
    assert "all of what was released as it is" in risk.residual
    assert not [one for one in assessment.hazards(masked.predicate()) if "cut model" in one.question]
