"""The scores' file: one spelling, and any bytes end in scores or a ConfigError."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from privacy.audit import canary_file
from privacy.audit.canary_file import decode, line, rounded, scores_of
from privacy.errors import ConfigError

ONE = line("audit.one_run", "local/float/correct", np.array([1.5, -0.25, 1 / 3]))
TWO = line("audit.black_box", "black_box/control", np.array([2.0]))


def test_lines_come_back_by_claim() -> None:
    found = decode(ONE + TWO)
    assert found == {"audit.one_run": ONE, "audit.black_box": TWO}
    assert scores_of(ONE)["local/float/correct"].tolist() == [1.5, -0.25, 0.333333333333]


@given(arrays(np.float64, st.integers(0, 30), elements=st.floats(-1e9, 1e9)))
def test_what_is_read_is_what_claims_are_computed_from(scores: canary_file.Scores) -> None:
    read = scores_of(line("audit.one_run", "x", scores))["x"]
    assert (read == rounded(scores)).all()


def edited(**changes: object) -> bytes:
    return json.dumps({**json.loads(ONE), **changes}, separators=(",", ":"), sort_keys=True).encode() + b"\n"


@pytest.mark.parametrize(
    "data",
    [
        ONE[:-1],
        b"\n",
        b"[]\n",
        ONE.replace(b'"claim"', b' "claim"'),
        edited(claim="audit.other"),
        edited(more=1),
        edited(what="x" * 65),
        edited(scores=["1e3"]),
        edited(scores=["01"]),
        edited(scores=[1]),
        edited(scores=["NaN"]),
        edited(scores=["1"] * (canary_file.MAX_SCORES + 1)),
    ],
)
def test_other_lines_are_refused(data: bytes) -> None:
    with pytest.raises(ConfigError):
        decode(data)


def test_a_line_that_is_cut_short_is_called_that() -> None:
    with pytest.raises(ConfigError, match="cut short"):
        decode(ONE[:-1])


def test_a_measurement_is_listed_once() -> None:
    with pytest.raises(ConfigError, match="twice"):
        scores_of(ONE + ONE)


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary_file, "MAX_CANARIES_BYTES", 10)
    with pytest.raises(ConfigError, match="larger"):
        decode(ONE)


@given(st.binary(max_size=200))
def test_any_bytes_end_in_lines_or_a_refusal(data: bytes) -> None:
    try:
        decode(data)
    except ConfigError:
        return
    assert data == b""
