"""Numbers in reports: one notation, and lower bounds that never say too much."""

import json
import math
import re
from decimal import Decimal
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.audit.figures import epsilon_text, figure

NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,40})?")  # as in the schema


@given(st.floats(min_value=-1e16, max_value=1e16))
def test_figures_fit_the_schema_and_keep_twelve_digits(value: float) -> None:
    text = figure(value)
    assert NUMBER.fullmatch(text)
    assert text != "-0"
    assert abs(Decimal(text) - Decimal(value)) <= max(abs(Decimal(value)) * Decimal("5.01e-12"), Decimal("1e-40"))
    assert figure(float(text)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (-0.0, "0"), (1.0, "1"), (-2.50, "-2.5"), (1e-5, "0.00001"), (123456789012345.0, "123456789012000"),
     (-1e-60, "0"), (1 / 3, "0.333333333333")],
)  # fmt: skip
def test_figures_have_one_spelling(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e17])
def test_what_no_report_can_hold_is_an_error(value: float) -> None:
    with pytest.raises(ValueError, match="no number that a report can hold"):
        figure(value)


@given(st.floats(min_value=-1e3, max_value=1e6))
def test_bounds_are_rounded_down(value: float) -> None:
    text = epsilon_text(value)
    assert re.fullmatch(r"(0|[1-9][0-9]{0,8})\.[0-9]{4}", text)
    assert Decimal(text) <= max(Decimal(value), Decimal(0))
    if 0 <= value < 1000:
        assert Decimal(value) - Decimal(text) < Decimal("0.0001")


def test_bounds_at_the_edges() -> None:
    assert epsilon_text(math.inf) == epsilon_text(1e9) == "1000.0000"
    assert epsilon_text(999.99999) == "999.9999"
    assert epsilon_text(-3.0) == epsilon_text(-0.0) == "0.0000"
    with pytest.raises(ValueError, match="is a number"):
        epsilon_text(math.nan)


def test_the_schemas_pattern_is_the_one_tested_here() -> None:
    text = resources.files("privacy.audit").joinpath("schemas", "privacy-audit-v1.json").read_text(encoding="utf-8")
    assert json.loads(text)["$defs"]["number"]["pattern"] == f"^{NUMBER.pattern}$"
