"""Contexts: the table of thresholds, every rule of §2 broken once, and one encoding."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ConfigError, RemoteProtocolError
from privacy.secagg.context import (
    Block,
    Durations,
    Region,
    Roster,
    RoundContext,
    Thresholds,
    model_root,
    region_digest,
    thresholds,
)
from privacy.secagg.encoding import digest, dumps, loads, u64
from tests.privacy.secagg.parties import identity, parties

CONTEXT = parties(4).context


@pytest.mark.parametrize(
    ("n", "n_c", "t", "survivors", "cover"),
    [
        (3, 0, 2, 3, 3),
        (4, 1, 3, 3, 3),
        (5, 1, 4, 4, 3),
        (6, 1, 4, 4, 3),
        (7, 2, 5, 5, 4),
        (10, 3, 7, 7, 5),
        (100, 33, 67, 67, 35),
    ],
)
def test_defaults(n: int, n_c: int, t: int, survivors: int, cover: int) -> None:
    assert thresholds(n) == Thresholds(n_c, t, survivors, cover)


@pytest.mark.parametrize("n", [-1, 0, 1, 2, 101])
def test_fewer_than_three_sites_or_more_than_a_hundred_are_refused(n: int) -> None:
    with pytest.raises(ConfigError, match="3 to 100"):
        thresholds(n, 0)


@given(st.integers(3, 100), st.integers(0, 99))
def test_thresholds_keep_every_rule_or_are_refused(n: int, n_c: int) -> None:
    try:
        limits = thresholds(n, n_c)
    except ConfigError:
        assert n_c + 2 > n or (n + n_c) // 2 + 1 > n
        return
    assert 2 * limits.t > n + n_c
    # Two sets of t sites share an honest one, whatever the server does.
    assert 2 * limits.t - n > n_c
    assert n >= limits.min_survivors >= max(limits.t, n_c + 2, 3)
    assert limits.min_cover >= n_c + 2


@pytest.mark.parametrize(
    "change",
    [{"t": 2}, {"t": 5}, {"n_c": -1}, {"n_c": 2}, {"min_survivors": 2}, {"min_survivors": 5}, {"min_cover": 2}],
)
def test_thresholds_off_by_one_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        replace(CONTEXT, thresholds=replace(CONTEXT.thresholds, **change))


def test_exactly_half_of_sites_and_colluders_is_not_a_threshold() -> None:
    """With n = 5, n_c = 1 and t = 3, two sets of three could share the colluding site only."""
    with pytest.raises(ConfigError, match="threshold 3"):
        Thresholds(1, 3, 4, 3).check(5)
    with pytest.raises(ConfigError, match="3 survivors are too few"):  # fewer than open a secret
        Thresholds(1, 4, 3, 3).check(5)
    with pytest.raises(ConfigError, match="3 survivors are too few"):  # of two honest ones, each is seen by the rest
        Thresholds(2, 3, 3, 4).check(3)
    Thresholds(1, 4, 4, 3).check(5)


COHORT = CONTEXT.cohort
BAD: list[dict[str, Any]] = [
    {"cohort": ("site-2", "site-1", "site-3", "site-4")},
    {"cohort": ("site-1", "site-1", "site-3", "site-4")},
    {"cohort": ("Site-1", "site-2", "site-3", "site-4")},
    {"cohort": COHORT[:2]},
    {"run": bytes(15)},
    {"round": 0},
    {"attempt": 0},
    {"attempt": 4},
    {"roster": bytes(31)},
    {"model_root": bytes(33)},
    {"job": b""},
    {"bits": 16},
    {"bits": 33},
    {"fraction_bits": 32},
    {"regions": ()},
    {"regions": (Region((), (Block(1, 1),)),)},
    {"regions": (Region(COHORT, ()),)},
    {"regions": (Region(("site-2", "site-1"), (Block(1, 1),)),)},
    {"regions": (Region(("site-1", "stranger"), (Block(1, 1),)),)},
    {"regions": (Region(COHORT, (Block(0, 1),)),)},
    {"regions": (Region(COHORT, (Block(1, 0),)),)},
    {"regions": (Region(COHORT, (Block(1, 1), Block(1, 2**29))),)},  # 4 * 2^29 = 2^31 wraps
    {"regions": (Region(COHORT, (Block(2**31, 1),)), Region(COHORT, (Block(2**31 + 1, 1),)))},
    {"durations": Durations(0, 1, 1, 1)},
    {"purpose": "x" * 1001},
]


@pytest.mark.parametrize("change", BAD, ids=str)
def test_every_rule(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        replace(CONTEXT, **change)


def test_the_largest_bound_that_cannot_wrap() -> None:
    replace(CONTEXT, regions=(Region(COHORT, (Block(1, 2**29 - 1),)),))
    replace(CONTEXT, bits=64, regions=(Region(COHORT, (Block(1, 2**61 - 1),)),))
    with pytest.raises(ConfigError, match="wrap"):
        replace(CONTEXT, bits=64, regions=(Region(COHORT, (Block(1, 2**61),)),))


def test_one_encoding() -> None:
    assert RoundContext.decode(CONTEXT.encode()) == CONTEXT
    assert CONTEXT.digest == digest("ctx", CONTEXT.encode())


@pytest.mark.parametrize("name", sorted(loads(CONTEXT.encode())))
def test_every_field_is_bound_and_demanded(name: str) -> None:
    fields = loads(CONTEXT.encode())
    del fields[name]
    with pytest.raises(RemoteProtocolError):
        RoundContext.decode(dumps(fields))
    with pytest.raises(RemoteProtocolError):
        RoundContext.decode(dumps({**loads(CONTEXT.encode()), name: None}))
    with pytest.raises(RemoteProtocolError):
        RoundContext.decode(dumps({**loads(CONTEXT.encode()), "more": 1}))


def test_version_and_booleans_are_not_integers() -> None:
    for name, value in (("version", 2), ("version", True), ("round", True), ("fixed_set", 1), ("bits", 48)):
        with pytest.raises(RemoteProtocolError):
            RoundContext.decode(dumps({**loads(CONTEXT.encode()), name: value}))


def test_rosters() -> None:
    key = identity("a").public_key
    other = identity("b").public_key
    roster = Roster(3, {"b": other, "a": key})
    assert roster.digest == digest("roster", u64(3), b"a", key, b"b", other)
    assert roster.digest != Roster(4, dict(roster.keys)).digest
    for keys in ({"A": key}, {"": key}, {"a" * 65: key}, {"a": key[:31]}, {"a": key, "b": key}, {"ü": key}):
        with pytest.raises(ConfigError):
            Roster(1, keys)


def test_model_root_depends_on_everything() -> None:
    base = (0, 5, ("a", "b"), b"v" * 32)
    variants = [
        base,
        (1, 5, ("a", "b"), b"v" * 32),
        (0, 6, ("a", "b"), b"v" * 32),
        (0, 5, ("ab",), b"v" * 32),
        (0, 5, ("a", "b"), b"w" * 32),
    ]
    roots = {model_root(b"p" * 32, [region_digest(*variant)]) for variant in variants}
    assert len({*roots, model_root(b"q" * 32, [region_digest(*base)])}) == 6


def test_active_regions_and_their_cover() -> None:
    regions = (Region(COHORT, (Block(1, 1),)), Region(COHORT[:3], (Block(1, 1),)), Region(COHORT[:2], (Block(1, 1),)))
    context = replace(CONTEXT, regions=regions)
    assert context.active(COHORT) == (0, 1)
    assert context.active(COHORT[1:]) == (0,)
    assert context.uncovered((0, 1), COHORT[1:]) == 1
    assert context.uncovered((0,), COHORT[1:]) is None
    assert context.held("site-3") == (0, 1)
    assert context.carried((0, 1), "site-3", "site-4") == (0,)
