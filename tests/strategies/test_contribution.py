import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy.errors import LocalProtocolError, RemoteProtocolError
from strategies.contribution import (
    Contribution,
    Declared,
    Vector,
    check_received,
    check_sent,
    violation,
    weighted_mean,
)
from strategies.task import SiteId
from tests.strategies.contract import vector

DECLARED = Declared(arrays=("update",), scalars=("loss",))
A, B, C = SiteId("a"), SiteId("b"), SiteId("c")
UPDATE = np.array([1.0, 2.0], dtype=np.float32)
GOOD: dict[str, Any] = {"arrays": {"update": UPDATE}, "scalars": {"loss": 0.5}}

VIOLATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "undeclared array": ({"arrays": {"update": UPDATE, "rows": UPDATE}}, "undeclared array 'rows'"),
    "undeclared scalar": ({"scalars": {"loss": 0.5, "positives": 17.0}}, "undeclared scalar 'positives'"),
    "missing array": ({"arrays": {}}, "missing array 'update'"),
    "missing scalar": ({"scalars": {}}, "missing scalar 'loss'"),
    "longer": ({"arrays": {"update": np.zeros(3, np.float32)}}, "array 'update' is not float32 of shape (2,)"),
    "matrix": ({"arrays": {"update": np.zeros((2, 1), np.float32)}}, "array 'update' is not float32 of shape (2,)"),
    "float64": ({"arrays": {"update": UPDATE.astype(np.float64)}}, "array 'update' is not float32 of shape (2,)"),
    "list": ({"arrays": {"update": [1.0, 2.0]}}, "array 'update' is not float32 of shape (2,)"),
    "nan": ({"arrays": {"update": vector(1.0, np.nan)}}, "array 'update' has entries that are not finite"),
    "infinite": ({"arrays": {"update": vector(np.inf, 1.0)}}, "array 'update' has entries that are not finite"),
    "nan scalar": ({"scalars": {"loss": math.nan}}, "scalar 'loss' is not a finite number"),
    "text scalar": ({"scalars": {"loss": "0.5"}}, "scalar 'loss' is not a finite number"),
    "boolean scalar": ({"scalars": {"loss": True}}, "scalar 'loss' is not a finite number"),
}

finite = st.floats(-1e6, 1e6, width=32)
weight = st.integers(1, 10_000)


def contribution(**changes: Any) -> Contribution:
    return Contribution(**{**GOOD, **changes})


def updates(*vectors: Vector) -> list[tuple[SiteId, Contribution]]:
    return [(SiteId(f"site{i}"), Contribution({"update": update})) for i, update in enumerate(vectors)]


def test_what_was_declared_passes() -> None:
    assert violation(contribution(), DECLARED, 2) is None
    check_sent(contribution(), DECLARED, 2)
    check_received(contribution(), DECLARED, 2, site_id=A)


@pytest.mark.parametrize(("changes", "reason"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_anything_else_is_our_bug_at_the_site_and_the_sites_fault_at_the_server(
    changes: dict[str, Any], reason: str
) -> None:
    bad = contribution(**changes)
    with pytest.raises(LocalProtocolError) as ours:
        check_sent(bad, DECLARED, 2)
    assert str(ours.value) == f"nothing was sent: {reason}"
    with pytest.raises(RemoteProtocolError) as theirs:
        check_received(bad, DECLARED, 2, site_id=A)
    assert (str(theirs.value), theirs.value.site_id, theirs.value.phase) == (f"a: {reason}", "a", "train")


def test_a_name_from_a_peer_is_cut_and_quoted() -> None:
    name = "\x1b[2J" + "x" * 10_000
    reason = violation(contribution(arrays={name: UPDATE}), DECLARED, 2)
    assert reason is not None
    assert len(reason) < 80
    assert "\x1b" not in reason


def test_messages_never_show_a_value() -> None:
    secret = contribution(arrays={"update": vector(123.456, np.nan)}, scalars={"loss": math.inf})
    reason = violation(secret, DECLARED, 2)
    assert reason is not None
    assert "123" not in reason


def test_mean_by_hand() -> None:
    # Weights 1 and 3: (1·(4, 0) + 3·(0, 8)) / 4 = (1, 6); loss (1·0.5 + 3·1.5) / 4 = 1.25.
    pairs = [
        (A, Contribution({"update": vector(4.0, 0.0)}, {"loss": 0.5})),
        (B, Contribution({"update": vector(0.0, 8.0)}, {"loss": 1.5})),
    ]
    aggregate = weighted_mean(pairs, {A: 1.0, B: 3.0, C: 9.0})
    np.testing.assert_array_equal(aggregate.mean["update"], [1.0, 6.0])
    assert (aggregate.weight, dict(aggregate.scalars)) == (4.0, {"loss": 1.25})
    assert aggregate.mean["update"].dtype == np.float64
    assert not aggregate.mean["update"].flags.writeable


def test_sums_in_the_order_given() -> None:
    # 1e16 + 1 is 1e16 in float64: the order of the sites is visible in the bits, so it must be kept.
    big, one = vector(1e16), vector(1.0)
    weights = {SiteId(f"site{i}"): 1.0 for i in range(3)}
    assert weighted_mean(updates(big, one, -big), weights).mean["update"][0] == 0.0
    assert weighted_mean(updates(big, -big, one), weights).mean["update"][0] == pytest.approx(1.0 / 3.0)


@given(
    vectors=st.lists(arrays(np.float32, 3, elements=finite), min_size=1, max_size=6),
    weights=st.lists(weight, min_size=6, max_size=6),
)
def test_mean_is_the_exact_one_up_to_rounding(vectors: list[Vector], weights: list[int]) -> None:
    by_site = {SiteId(f"site{i}"): float(w) for i, w in enumerate(weights)}
    aggregate = weighted_mean(updates(*vectors), by_site)
    used = weights[: len(vectors)]
    assert aggregate.weight == sum(used)
    for index in range(3):
        terms = [Fraction(float(v[index])) * w for v, w in zip(vectors, used, strict=True)]
        exact = sum(terms, Fraction(0)) / sum(used)
        scale = float(sum((abs(term) for term in terms), Fraction(0)) / sum(used))
        assert aggregate.mean["update"][index] == pytest.approx(float(exact), rel=0.0, abs=1e-14 * scale + 1e-300)


@given(
    vectors=st.lists(arrays(np.float32, 2, elements=finite), min_size=2, max_size=5),
    weights=st.lists(weight, min_size=5, max_size=5),
    power=st.integers(-20, 20),
)
def test_mean_depends_on_proportions_alone(vectors: list[Vector], weights: list[int], power: int) -> None:
    by_site = {SiteId(f"site{i}"): float(w) for i, w in enumerate(weights)}
    scaled = {site: w * 2.0**power for site, w in by_site.items()}
    one, other = (weighted_mean(updates(*vectors), w).mean["update"] for w in (by_site, scaled))
    np.testing.assert_array_equal(one, other)


@given(update=arrays(np.float32, 4, elements=finite), w=weight)
def test_mean_of_one_site_is_its_own(update: Vector, w: int) -> None:
    mean = weighted_mean(updates(update), {SiteId("site0"): float(w)}).mean["update"]
    np.testing.assert_array_equal(mean.astype(np.float32), update)


@given(weights=st.lists(st.floats(1e-3, 1e6), min_size=2, max_size=8), survivors=st.integers(1, 8))
def test_share_of_survivors_never_exceeds_one(weights: list[float], survivors: int) -> None:
    by_site = {SiteId(f"site{i}"): w for i, w in enumerate(weights)}
    pairs = updates(*[UPDATE] * len(weights))[::-1][:survivors]
    assert 0.0 < weighted_mean(pairs, by_site).weight / math.fsum(weights) <= 1.0


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_weight_that_is_none(bad: float) -> None:
    with pytest.raises(ValueError, match="site1 has no positive, finite weight"):
        weighted_mean(updates(UPDATE, UPDATE), {SiteId("site0"): 1.0, SiteId("site1"): bad})


def test_refuses_a_site_without_weight() -> None:
    with pytest.raises(ValueError, match="site1 has no positive, finite weight"):
        weighted_mean(updates(UPDATE, UPDATE), {SiteId("site0"): 1.0})


def test_refuses_no_contribution_and_one_site_twice() -> None:
    for pairs in ([], updates(UPDATE) * 2):
        with pytest.raises(ValueError, match="at least one contribution and each site at most once"):
            weighted_mean(pairs, {SiteId("site0"): 1.0})


def test_refuses_contributions_with_different_names() -> None:
    pairs = [(A, contribution()), (B, contribution(scalars={}))]
    with pytest.raises(ValueError, match="b contributes other names than a"):
        weighted_mean(pairs, {A: 1.0, B: 1.0})
