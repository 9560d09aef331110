import contextlib
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.dp.events import FULL_BATCH, GaussianEvent, Sampling, SamplingType, decimal, merged
from privacy.errors import UnsupportedEventError

EVENT = GaussianEvent(Decimal("10.6156"), FULL_BATCH, 15)

events = st.builds(
    GaussianEvent,
    st.decimals("0.0001", "1000", places=4),
    st.one_of(
        st.just(FULL_BATCH),
        st.decimals("0.000001", "0.999999", places=6).map(lambda q: Sampling(SamplingType.POISSON, q)),
    ),
    st.integers(1, 10**9),
)


@given(events)
def test_json_round_trip_is_exact(event: GaussianEvent) -> None:
    assert GaussianEvent.from_json(event.to_json()) == event


@pytest.mark.parametrize(
    "change",
    [
        {"mechanism": "laplace"},
        {"noise_multiplier": 10.6},
        {"noise_multiplier": "1e999999"},
        {"noise_multiplier": "NaN"},
        {"noise_multiplier": "-1"},
        {"noise_multiplier": "0"},
        {"sampling": {"type": "shuffle", "rate": "0.1"}},
        {"sampling": {"type": "full", "rate": "0.5"}},
        {"sampling": {"type": "poisson", "rate": "1"}},
        {"sampling": {"type": "poisson", "rate": "1.5"}},
        {"sampling": None},
        {"count": 0},
        {"count": True},
        {"count": 1.0},
        {"count": 10**12},
        {"extra": 1},
    ],
)
def test_anything_unknown_is_unpriced(change: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedEventError):
        GaussianEvent.from_json({**EVENT.to_json(), **change})


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_an_event_or_refused(data: object) -> None:
    with pytest.raises(UnsupportedEventError):
        GaussianEvent.from_json(data)


@given(st.text())
def test_any_text_is_a_decimal_or_refused(text: str) -> None:
    with contextlib.suppress(UnsupportedEventError):
        assert decimal(text).is_finite()


def test_merging_adds_counts_of_equal_mechanisms_only() -> None:
    other = GaussianEvent(Decimal(2), FULL_BATCH, 3)
    assert merged([EVENT, other, EVENT]) == (EVENT.times(30), other)
