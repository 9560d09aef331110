import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies.contribution import Vector
from strategies.layout import Layout

LAYOUT = Layout(names=("body", "scale", "head"), shapes=((2, 3), (), (2,)))

shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=5, unique=True))
    return Layout(tuple(names), tuple(draw(shapes) for _ in names))


def counted(layout: Layout) -> Vector:
    return np.arange(layout.size, dtype=np.float32)


def test_positions_by_hand() -> None:
    assert (LAYOUT.sizes, LAYOUT.offsets, LAYOUT.size) == ((6, 1, 2), (0, 6, 7), 9)
    cut = LAYOUT.unflatten(counted(LAYOUT))
    np.testing.assert_array_equal(cut["body"], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    np.testing.assert_array_equal(cut["scale"], 6.0)
    np.testing.assert_array_equal(cut["head"], [7.0, 8.0])


@given(layout=layouts())
def test_cutting_and_joining_undo_each_other(layout: Layout) -> None:
    cut = layout.unflatten(counted(layout))
    assert tuple(cut) == layout.names
    assert tuple(array.shape for array in cut.values()) == layout.shapes
    backwards = dict(reversed(cut.items()))
    np.testing.assert_array_equal(layout.flatten(backwards), counted(layout))


@given(layout=layouts())
def test_parameters_lie_at_their_offsets_without_gaps(layout: Layout) -> None:
    for start, shape, array in zip(
        layout.offsets, layout.shapes, layout.unflatten(counted(layout)).values(), strict=True
    ):
        np.testing.assert_array_equal(array.reshape(-1), np.arange(start, start + math.prod(shape)))


@given(one=layouts(), other=layouts())
def test_digests_are_equal_exactly_for_equal_layouts(one: Layout, other: Layout) -> None:
    assert (one.digest == other.digest) == (one == other)
    assert one.digest == Layout(one.names, one.shapes).digest


def test_order_changes_the_digest() -> None:
    assert LAYOUT.digest != Layout(LAYOUT.names[::-1], LAYOUT.shapes[::-1]).digest


def test_digest_is_over_canonical_json() -> None:
    # For ASCII text and small integers, RFC 8785 is sorted keys without spaces.
    described = {
        "format": "collegium/layout/v1",
        "dtype": "float32",
        "names": ["body", "scale", "head"],
        "shapes": [[2, 3], [], [2]],
    }
    canonical = json.dumps(described, sort_keys=True, separators=(",", ":")).encode()
    assert LAYOUT.digest == hashlib.sha256(canonical).hexdigest()


def test_results_are_copies() -> None:
    vector = counted(LAYOUT)
    cut = LAYOUT.unflatten(vector)
    cut["body"][0, 0] = 99.0
    assert vector[0] == 0.0
    single = Layout(("only",), ((2,),))
    array = np.zeros(2, dtype=np.float32)
    single.flatten({"only": array})[0] = 99.0
    assert array[0] == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"head": None},
        {"extra": np.zeros(1, np.float32)},
        {"head": np.zeros(3, np.float32)},
        {"head": np.zeros((2, 1), np.float32)},
        {"head": np.zeros(2, np.float64)},
    ],
    ids=["missing", "extra", "longer", "matrix", "float64"],
)
def test_refuses_to_join_anything_else(change: dict[str, Any]) -> None:
    parameters = {**LAYOUT.unflatten(counted(LAYOUT)), **change}
    with pytest.raises(ValueError, match=r"the layout has|not float32 of shape"):
        LAYOUT.flatten({name: array for name, array in parameters.items() if array is not None})


@pytest.mark.parametrize(
    "bad", [np.zeros(8, np.float32), np.zeros((9, 1), np.float32), np.zeros(9)], ids=["short", "matrix", "float64"]
)
def test_refuses_to_cut_anything_else(bad: Any) -> None:
    with pytest.raises(ValueError, match="not float32 of shape"):
        LAYOUT.unflatten(bad)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [((), ()), (("a", "a"), ((1,), (1,))), (("a",), ()), (("a",), ((0,),)), (("a",), ((2, -1),))],
    ids=["none", "twice", "no shape", "empty", "negative"],
)
def test_refuses_what_is_no_layout(names: tuple[str, ...], sizes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"layout needs|every dimension"):
        Layout(names, sizes)
