import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp.events import (
    FULL_BATCH,
    Arithmetic,
    Event,
    GaussianEvent,
    Sampling,
    SamplingType,
    SkellamEvent,
    decimal,
    event_from_json,
    merged,
)
from privacy.errors import UnsupportedEventError

EVENT = GaussianEvent(Decimal("10.6156"), FULL_BATCH, 15)
TRUNCATED = Sampling(SamplingType.TRUNCATED, Decimal("0.05"), cap=80, n_records=1000)
SKELLAM = SkellamEvent(Decimal(16777216), Decimal(1448), Decimal("65529.5"), 20)

rates = st.decimals("0.000001", "0.999999", places=6)
unbounded = st.one_of(st.just(FULL_BATCH), rates.map(lambda q: Sampling(SamplingType.POISSON, q)))
gaussians = st.builds(
    GaussianEvent,
    st.decimals("0.0001", "1000", places=4),
    unbounded,
    st.integers(1, 10**9),
    st.integers(1, 1000),
    st.sampled_from(Arithmetic),
) | st.builds(
    GaussianEvent,
    st.decimals("0.0001", "1000", places=4),
    st.builds(Sampling, st.just(SamplingType.TRUNCATED), rates, st.integers(1, 500), st.integers(500, 10**6)),
    st.integers(1, 10**9),
)
skellams = st.builds(
    SkellamEvent,
    st.decimals("0.001", "1e12", places=3),
    st.decimals("1", "1e6", places=2),
    st.decimals("1e6", "1e12", places=2),
    st.integers(1, 10**9),
)


@given(gaussians | skellams)
def test_json_round_trip_is_exact(event: Event) -> None:
    assert event_from_json(event.to_json()) == event
    assert type(event).from_json(event.to_json()) == event


def test_an_event_from_before_groups_and_arithmetic_keeps_its_meaning_and_its_form() -> None:
    old = {
        "mechanism": "gaussian",
        "noise_multiplier": "10.6156",
        "sampling": {"type": "full", "rate": "1"},
        "count": 15,
    }
    assert event_from_json(old) == EVENT
    assert EVENT.to_json() == old


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "laplace"},
        {"mechanism": "skellam"},
        {"mechanism": ["gaussian"]},
        {"noise_multiplier": 10.6},
        {"noise_multiplier": "1e999999"},
        {"noise_multiplier": "NaN"},
        {"noise_multiplier": "-1"},
        {"noise_multiplier": "0"},
        {"sampling": {"type": "shuffle", "rate": "0.1"}},
        {"sampling": {"type": "full", "rate": "0.5"}},
        {"sampling": {"type": "poisson", "rate": "1"}},
        {"sampling": {"type": "poisson", "rate": "1.5"}},
        {"sampling": {"type": "poisson", "rate": "0.5", "cap": 3, "n_records": 9}},
        {"sampling": {"type": "truncated_poisson", "rate": "0.5"}},
        {"sampling": {"type": "truncated_poisson", "rate": "0.5", "cap": 0, "n_records": 9}},
        {"sampling": {"type": "truncated_poisson", "rate": "0.5", "cap": 10, "n_records": 9}},
        {"sampling": {"type": "truncated_poisson", "rate": "0.5", "cap": True, "n_records": 9}},
        {"sampling": None},
        {"count": 0},
        {"count": True},
        {"count": 1.0},
        {"count": 10**12},
        {"group": 0},
        {"group": "2"},
        {"group": 10**6},
        {"arithmetic": "double"},
        {"arithmetic": None},
        {"extra": 1},
    ],
)
def test_anything_unknown_is_unpriced(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedEventError):
        event_from_json({**EVENT.to_json(), **change})


@pytest.mark.parametrize(
    "change",
    [
        {"variance": "0"},
        {"variance": 4},
        {"l2": "-1"},
        {"l1": "0"},
        {"l1": "1000"},
        {"count": 0},
        {"sampling": {"type": "full", "rate": "1"}},
    ],
)
def test_skellam_noise_that_cannot_be_is_unpriced(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedEventError):
        event_from_json({**SKELLAM.to_json(), **change})


def test_groups_in_truncated_batches_are_unpriced() -> None:
    with pytest.raises(UnsupportedEventError, match="groups"):
        GaussianEvent(Decimal(1), TRUNCATED, 1, group=2)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_an_event_or_refused(data: object) -> None:
    with pytest.raises(UnsupportedEventError):
        event_from_json(data)


@given(st.text())
def test_any_text_is_a_decimal_or_refused(text: str) -> None:
    with contextlib.suppress(UnsupportedEventError):
        assert decimal(text).is_finite()


def test_merging_adds_counts_of_equal_mechanisms_only() -> None:
    other = GaussianEvent(Decimal(2), FULL_BATCH, 3)
    exact = GaussianEvent(Decimal(2), FULL_BATCH, 3, arithmetic=Arithmetic.INTEGER_EXACT)
    people = GaussianEvent(Decimal(2), FULL_BATCH, 3, group=2)
    assert merged([EVENT, other, EVENT]) == (EVENT.times(30), other)
    unlike: list[Event] = [other, exact, people, SKELLAM, SKELLAM]
    assert merged(unlike) == (other, exact, people, SKELLAM.times(40))
