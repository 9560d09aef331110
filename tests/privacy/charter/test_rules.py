"""What is not listed is refused: a case for every clause, that only this clause refuses."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from privacy.charter import rules
from privacy.charter.document import Charter, from_body
from privacy.charter.rules import CharterRefusalError, Proposal, check
from privacy.errors import PrivacyError
from privacy.secagg.context import Thresholds
from tests.privacy.charter.example import ALLOWED, CHARTER, NOW, SITES, TERMS, allowance, body, terms

LOOSE = from_body(body(privacy={"record": allowance(epsilon="1", delta="0.0005")}))
"""Here the setting is what binds; in ``CHARTER`` it is the asset."""


def loosely(**changes: object) -> Proposal:
    tight = {"delta": Decimal("0.0001"), **changes}
    return replace(terms(**tight), charter=LOOSE.digest)


def thresholds(n_c: int, t: int, survivors: int, cover: int) -> Proposal:
    return replace(ALLOWED, thresholds=Thresholds(n_c, t, survivors, cover))


THREE = replace(ALLOWED, cohort=SITES[:3], thresholds=Thresholds(0, 3, 3, 3))
FLOOR_THREE = from_body(body(floors={"cohort": 4, "survivors": 3, "threshold": 3, "cover": 3}))
COVER_FOUR = from_body(body(floors={"cohort": 4, "survivors": 4, "threshold": 3, "cover": 4}))
THRESHOLD_FOUR = from_body(body(floors={"cohort": 4, "survivors": 4, "threshold": 4, "cover": 3}))
FORBIDDEN: list[tuple[str, Charter, Proposal, datetime]] = [
    ("version", CHARTER, replace(ALLOWED, charter="00" * 32), NOW),
    ("not before", CHARTER, ALLOWED, CHARTER.not_before - timedelta(seconds=1)),
    ("not after", CHARTER, ALLOWED, CHARTER.not_after),
    ("application", CHARTER, replace(ALLOWED, application="cd" * 32), NOW),
    ("study", CHARTER, replace(ALLOWED, study="00" * 32), NOW),
    ("study", CHARTER, replace(ALLOWED, study="heart"), NOW),
    ("strategy", CHARTER, replace(ALLOWED, strategy="scaffold", parameters={}), NOW),
    ("parameters", CHARTER, replace(ALLOWED, parameters={}), NOW),
    ("parameters", CHARTER, replace(ALLOWED, parameters={**ALLOWED.parameters, "nu": Decimal(0)}), NOW),
    ("ranges", CHARTER, replace(ALLOWED, parameters={"mu": Decimal("0.1000001")}), NOW),
    ("ranges", CHARTER, replace(ALLOWED, parameters={"mu": Decimal("-0.0000001")}), NOW),
    ("ranges", CHARTER, replace(ALLOWED, parameters={"mu": Decimal("NaN")}), NOW),
    ("members", CHARTER, replace(ALLOWED, cohort=("alba", "brno", "cork", "evil")), NOW),
    ("order", CHARTER, replace(ALLOWED, cohort=("alba", "alba", "brno", "cork")), NOW),
    ("cohort", FLOOR_THREE, replace(THREE, charter=FLOOR_THREE.digest), NOW),
    ("secure aggregation", CHARTER, replace(ALLOWED, thresholds=None), NOW),
    ("protocol", CHARTER, thresholds(2, 3, 4, 4), NOW),
    ("survivors", CHARTER, thresholds(1, 3, 3, 3), NOW),
    ("threshold", THRESHOLD_FOUR, replace(thresholds(1, 3, 4, 3), charter=THRESHOLD_FOUR.digest), NOW),
    ("cover", COVER_FOUR, replace(thresholds(1, 3, 4, 3), charter=COVER_FOUR.digest), NOW),
    ("privacy", CHARTER, replace(ALLOWED, privacy=()), NOW),
    ("setting", CHARTER, terms(setting="site"), NOW),
    ("repeated", CHARTER, replace(ALLOWED, privacy=(TERMS, TERMS)), NOW),
    ("epsilon", LOOSE, loosely(epsilon=Decimal("1.01")), NOW),
    ("epsilon", CHARTER, terms(epsilon=Decimal(0)), NOW),
    ("delta", LOOSE, loosely(delta=Decimal("0.0006")), NOW),
    ("delta", CHARTER, terms(delta=Decimal(0)), NOW),
    ("clip", CHARTER, terms(clip=Decimal("1e6")), NOW),
    ("clip", CHARTER, terms(clip=Decimal("1.01")), NOW),
    ("clip", CHARTER, terms(clip=Decimal(0)), NOW),
    ("clip", CHARTER, terms(clip=Decimal("NaN")), NOW),
    ("clip", CHARTER, terms(clip=Decimal("-Infinity")), NOW),
    ("noise", CHARTER, terms(noise=Decimal(0)), NOW),
    ("noise", CHARTER, terms(noise=Decimal("0.79")), NOW),
    ("noise", CHARTER, terms(noise=Decimal("NaN")), NOW),
    ("noise", CHARTER, terms(noise=Decimal("Infinity")), NOW),
    ("asset", CHARTER, replace(ALLOWED, asset="lungs"), NOW),
    ("purpose", CHARTER, replace(ALLOWED, purpose="marketing"), NOW),
    ("epsilon of the asset", CHARTER, terms(epsilon=Decimal("2.01")), NOW),
    ("delta of the asset", CHARTER, terms(delta=Decimal("0.002")), NOW),
]


def test_what_the_charter_lists_is_allowed() -> None:
    check(CHARTER, ALLOWED, NOW)
    check(CHARTER, ALLOWED, CHARTER.not_before)
    check(CHARTER, replace(ALLOWED, strategy="fedavg", parameters={}), NOW)
    check(CHARTER, replace(ALLOWED, parameters={"mu": Decimal("0.1")}), NOW)
    check(CHARTER, replace(ALLOWED, parameters={"mu": Decimal(0)}), NOW)
    check(CHARTER, terms(clip=Decimal(1), noise=Decimal("0.8"), epsilon=Decimal(2)), NOW)
    check(CHARTER, replace(ALLOWED, privacy=(TERMS, replace(TERMS, setting="distributed"))), NOW)
    check(LOOSE, loosely(), NOW)


def test_without_differential_privacy_only_where_the_charter_says_so() -> None:
    unsafe = from_body(body(unsafe_without_dp=True))
    check(unsafe, replace(ALLOWED, charter=unsafe.digest, privacy=()), NOW)


@pytest.mark.parametrize(("clause", "charter", "proposal", "now"), FORBIDDEN)
def test_each_clause_forbids(clause: str, charter: Charter, proposal: Proposal, now: datetime) -> None:
    with pytest.raises(CharterRefusalError) as info:
        check(charter, proposal, now)
    assert info.value.clause == clause
    assert isinstance(info.value, PrivacyError)
    assert all(line.isprintable() for line in info.value.lines())


@pytest.mark.parametrize(("clause", "charter", "proposal", "now"), FORBIDDEN)
def test_without_its_clause_each_case_would_pass(
    clause: str, charter: Charter, proposal: Proposal, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So no clause is there for show: it alone stands between the case and the site's data."""
    monkeypatch.setattr(rules, "RULES", {name: rule for name, rule in rules.RULES.items() if name != clause})
    check(charter, proposal, now)


def test_a_simulation_may_do_without_masks_and_without_nothing_else() -> None:
    bare = replace(ALLOWED, thresholds=None)
    check(CHARTER, bare, NOW, unsafe_without_masks=True)
    check(CHARTER, ALLOWED, NOW, unsafe_without_masks=True)
    for clause, charter, proposal, now in FORBIDDEN:
        if clause != "secure aggregation":
            with pytest.raises(CharterRefusalError) as info:
                check(charter, proposal, now, unsafe_without_masks=True)
            assert info.value.clause == clause


@pytest.mark.parametrize("odd", ["\x1b[2Jallowed", "a\nallowed", "\u202ea", "x" * 100_000], ids=ascii)
def test_what_a_stranger_wrote_cannot_forge_a_line_of_a_log(odd: str) -> None:
    for proposal in (
        replace(ALLOWED, strategy=odd),
        replace(ALLOWED, parameters={**ALLOWED.parameters, odd: Decimal(0)}),
        replace(ALLOWED, cohort=("alba", "brno", "cork", odd)),
        replace(ALLOWED, purpose=odd),
    ):
        with pytest.raises(CharterRefusalError) as info:
            check(CHARTER, proposal, NOW)
        assert all(line.isprintable() and len(line) < 400 for line in info.value.lines())


def test_every_clause_has_a_case() -> None:
    assert {clause for clause, *_ in FORBIDDEN} == set(rules.RULES)


def test_moments_are_compared_across_time_zones() -> None:
    last = CHARTER.not_after - timedelta(seconds=1)
    check(CHARTER, ALLOWED, last.astimezone(tz=None))
    assert last.tzinfo is UTC
