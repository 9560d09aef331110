"""Dealing the rows of one table: counts, chances, and rules that cannot be followed."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ConfigError
from simulations.data.deal import NOBODY, Deal, OnlyAt, deal_rows, parse_deal
from strategies.task import SiteId
from strategies.task_file import StrictTable

A, B, C, D = (SiteId(name) for name in "abcd")
EVEN = {A: 0.25, B: 0.25, C: 0.25, D: 0.25}
LABELS = np.arange(1797) % 10


def counts(labels: npt.NDArray[np.int64], owner: npt.NDArray[np.int64], n_sites: int) -> npt.NDArray[np.int64]:
    """Returns how many rows of each class each site has, by counting them one by one."""
    table = np.zeros((n_sites, int(labels.max()) + 1), np.int64)
    for label, site in zip(labels, owner, strict=True):
        if site != NOBODY:
            table[site, label] += 1
    return table


@given(
    st.lists(st.integers(1, 100), min_size=1, max_size=12),
    st.integers(0, 120),
    st.integers(0, 3000),
    st.integers(0, 2**32),
)
def test_shares_are_met_within_one_row(parts: list[int], undealt: int, n: int, seed: int) -> None:
    whole = sum(parts) + undealt
    shares = {SiteId(f"s{index}"): part / whole for index, part in enumerate(parts)}
    owner = deal_rows(np.zeros(n, np.int64), Deal("shares", shares, seed=seed))
    assert owner.shape == (n,)
    assert set(owner) <= {NOBODY, *range(len(parts))}
    for site, share in enumerate(shares.values()):
        assert abs(np.count_nonzero(owner == site) - share * n) <= 1.0 + 1e-6
    assert abs(np.count_nonzero(owner == NOBODY) - undealt / whole * n) <= 1.0
    if not undealt:
        assert NOBODY not in owner


def test_a_deal_is_a_function_of_its_seed() -> None:
    for kind in ("shares", "dirichlet", "classes"):
        rule = replace(Deal("shares", EVEN, only=(OnlyAt((7,), (A,)),)), kind=kind)
        owner = deal_rows(LABELS, rule)
        np.testing.assert_array_equal(owner, deal_rows(LABELS, rule))
        assert (owner != deal_rows(LABELS, replace(rule, seed=1))).mean() > 0.5


def test_shares_are_dealt_in_random_order() -> None:
    """The rank sum of a site's row numbers is that of a random quarter (Wilcoxon 1945: within five deviations)."""
    n = len(LABELS)
    owner = deal_rows(LABELS, Deal("shares", EVEN))
    for site in range(4):
        rows = np.flatnonzero(owner == site) + 1
        m = len(rows)
        assert abs(rows.sum() - m * (n + 1) / 2) < 5 * np.sqrt(m * (n - m) * (n + 1) / 12)
        assert set(LABELS[rows - 1]) == set(range(10))


def test_dirichlet_deals_every_row_and_leaves_nobody_short() -> None:
    for seed in range(30):
        owner = deal_rows(LABELS, Deal("dirichlet", {SiteId(f"s{k}"): 0.1 for k in range(10)}, alpha=0.1, seed=seed))
        table = counts(LABELS, owner, 10)
        assert table.sum() == len(LABELS)
        assert table.sum(axis=1).min() >= 10
        assert ((table >= 2).sum(axis=1) >= 2).all()


@pytest.mark.parametrize("alpha", [0.5, 2.0, 100.0])
def test_dirichlet_shares_vary_as_the_distribution_says(alpha: float) -> None:
    """Of k equal parts, a Dirichlet share has mean 1/k and variance (1/k)(1 - 1/k) / (k alpha + 1)."""
    labels = np.arange(20_000) % 10
    shares = np.concatenate(
        [counts(labels, deal_rows(labels, Deal("dirichlet", EVEN, alpha=alpha, seed=s)), 4).T / 2000 for s in range(40)]
    )
    assert shares.shape == (400, 4)
    np.testing.assert_allclose(shares.mean(axis=0), 0.25, atol=0.06)
    np.testing.assert_allclose(shares.var(), 0.25 * 0.75 / (4 * alpha + 1), rtol=0.12)


def test_dirichlet_gives_up() -> None:
    with pytest.raises(ConfigError, match=r"^1000 draws with alpha = 1e-05 left some site") as caught:
        # Each class goes to one site, and ten classes are not two for each of six.
        deal_rows(LABELS, Deal("dirichlet", {SiteId(f"s{k}"): 0.1 for k in range(6)}, alpha=1e-5))
    assert "Raise alpha" in caught.value.hint


def test_classes_go_to_their_sites_alone() -> None:
    shares = {A: 0.1, B: 0.2, C: 0.3, D: 0.2}
    rule = Deal("classes", shares, only=(OnlyAt((8, 9), (B, D)), OnlyAt((0,), (C,))))
    table = counts(LABELS, deal_rows(LABELS, rule), 4)
    assert (table[:, 8:].sum(axis=1) > 0).tolist() == [False, True, False, True]
    assert (table[:, 0] > 0).tolist() == [False, False, True, False]
    # Four fifths of every group are dealt, in proportion to the shares of those who may have it.
    rows = np.bincount(LABELS)
    np.testing.assert_allclose(table[:, 8:].sum(axis=1), np.array([0, 0.4, 0, 0.4]) * rows[8:].sum(), atol=1)
    np.testing.assert_allclose(table[2, 0], 0.8 * rows[0], atol=1)
    np.testing.assert_allclose(table[:, 1:8].sum(axis=1), np.array([0.1, 0.2, 0.3, 0.2]) * rows[1:8].sum(), atol=1)


def test_kind_may_be_changed_if_the_rule_says_enough() -> None:
    rule = Deal("shares", EVEN)
    assert replace(rule, kind="dirichlet").alpha == 0.5
    with pytest.raises(ConfigError, match=r"^rows cannot be dealt by classes: the scenario says of no class"):
        replace(rule, kind="classes")


def parsed(table: Mapping[str, object], **at_sites: float) -> Deal:
    named = {SiteId(site): share for site, share in at_sites.items()}
    return parse_deal(StrictTable(table, "own.toml: data.deal"), (A, B, C), at_sites=named, n_classes=10)


def test_settings_arrive() -> None:
    table = {"kind": "classes", "alpha": 2, "seed": 9, "only": [{"classes": [7, 0], "sites": ["c", "a"]}]}
    deal = parsed(table, a=0.5, b=0.25, c=0.25)
    assert deal == Deal("classes", {A: 0.5, B: 0.25, C: 0.25}, 2.0, (OnlyAt((7, 0), (C, A)),), 9)
    listed = parsed({"kind": "shares", "shares": {"c": 0.2, "a": 0.1, "b": 0.3}})
    assert list(listed.shares.items()) == [(A, 0.1), (B, 0.3), (C, 0.2)]  # the order of the sites decides
    assert parsed({"kind": "dirichlet"}).shares == dict.fromkeys((A, B, C), 1 / 3)
    mixed = parsed({"kind": "shares", "shares": {"c": 0.2}}, a=0.1, b=0.3)
    assert mixed == parsed({"kind": "shares"}, a=0.1, b=0.3, c=0.2)


def only(**entry: Any) -> dict[str, object]:
    return {"kind": "classes", "only": [{"classes": [1], "sites": ["a"], **entry}]}


BAD: dict[str, Mapping[str, object]] = {
    ".kind: is missing": {},
    ".kind: 'iid' is not one of: shares, dirichlet, classes": {"kind": "iid"},
    ".alpha: must be greater than 0": {"kind": "dirichlet", "alpha": 0},
    ".aplha: unknown key": {"kind": "dirichlet", "aplha": 1},
    ".seed: must be at least 0": {"kind": "shares", "seed": -1},
    ".shares: add up to 1.1, which is more": {"kind": "shares", "shares": {"a": 0.4, "b": 0.4, "c": 0.3}},
    ".shares: 'c' has none, others have": {"kind": "shares", "shares": {"a": 0.4, "b": 0.4}},
    ".shares: the share of 'b' must be above 0 and at most 1, not 0": {
        "kind": "shares",
        "shares": {"a": 0.4, "b": 0, "c": 0.3},
    },
    ".shares.d: unknown key": {"kind": "shares", "shares": {"a": 0.4, "b": 0.1, "c": 0.3, "d": 0.1}},
    ".only[0].classes: must be whole numbers from 0 to 9": only(classes=[10]),
    ".only[0].classes: must be whole numbers from 0 to": only(classes=[1.5]),
    ".only[0]: must list at least one class and one site": only(sites=[]),
    ".only[0].sites: 'z' is no site of this scenario": only(sites=["a", "z"]),
    ".only[0].site: unknown key": only(site="b"),
    ".only[1].classes: has a class that another entry has": {
        "kind": "classes",
        "only": [{"classes": [1, 2], "sites": ["a"]}, {"classes": [2], "sites": ["b"]}],
    },
}


@pytest.mark.parametrize("expected", BAD)
def test_mistakes_are_named_with_their_place(expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(BAD[expected])
    message, *hint = caught.value.lines()
    assert message.startswith(f"own.toml: data.deal{expected}")
    assert len(hint) == 1
    assert "\n" not in message


def test_a_share_is_named_once() -> None:
    with pytest.raises(ConfigError, match="the share of 'a' is in its entry of sites already"):
        parsed({"kind": "shares", "shares": {"a": 0.2}}, a=0.2, b=0.2, c=0.2)
