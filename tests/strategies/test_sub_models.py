from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.sub_models import Box, SubModel, adapter, by_shape, front, keys, whole
from tests.strategies.divisions import coordinates, layouts, parts

NET = Layout(("conv", "norm", "head", "scale"), ((4, 2, 3, 3), (4,), (2, 4), ()))
DEEP = Layout(
    ("blocks.0.weight", "blocks.1.weight", "blocks.2.weight", "exits.0.bias", "exits.1.bias", "exits.2.bias"),
    ((4, 6), (4, 4), (4, 4), (2,), (2,), (2,)),
)
ADAPTED = Layout(("layer.base", "layer.lora_a", "layer.lora_b"), ((6, 6), (2, 6), (6, 2)))


def counted(size: int, first: int = 0) -> Vector:
    return np.arange(first, first + size, dtype=np.float32)


def axes(*places: tuple[int, ...] | range) -> Box:
    return tuple(np.array(tuple(axis), np.int64) for axis in places)


@st.composite
def any_part(draw: st.DrawFn) -> SubModel:
    return draw(parts(draw(layouts())))


@given(part=any_part())
def test_each_held_coordinate_is_found_in_the_piece(part: SubModel) -> None:
    assert (np.diff(part.held) > 0).all()
    places = coordinates(part.whole, dict(part.shared))
    assert set(part.held.tolist()) == {place for found in places.values() for place in found.reshape(-1).tolist()}
    # A piece that holds, in each shared entry, the position of that entry in the whole.
    numbered = {name: np.full(shape, -1.0, np.float32) for name, shape in zip(*_named(part.piece), strict=True)}
    for name, found in places.items():
        numbered[name] = found.astype(np.float32)
    flat = part.piece.flatten(numbered)
    np.testing.assert_array_equal(part.shared_of(flat), part.held)
    assert (np.delete(flat, part.slots) == -1).all()


def _named(layout: Layout) -> tuple[tuple[str, ...], tuple[tuple[int, ...], ...]]:
    return layout.names, layout.shapes


@given(part=any_part())
def test_a_piece_is_made_of_shared_frozen_and_private_values(part: SubModel) -> None:
    held, initial = counted(part.held.size, 1000), -1 - counted(part.piece.size)
    first = part.piece_of(held, initial, None)
    own = counted(part.private_of(first).size, 5000)
    later = part.piece_of(held, initial, own)
    for made, private in ((first, part.private_of(initial)), (later, own)):
        np.testing.assert_array_equal(part.shared_of(made), held)
        np.testing.assert_array_equal(part.private_of(made), private)
        cut, started = part.piece.unflatten(made), part.piece.unflatten(initial)
        for name in part.frozen:
            np.testing.assert_array_equal(cut[name], started[name])
    private_tensors = [values for name, values in part.piece.unflatten(later).items() if name in part.private]
    np.testing.assert_array_equal(np.concatenate([[], *(tensor.reshape(-1) for tensor in private_tensors)]), own)
    assert part.held.size + own.size + np.count_nonzero(~part.trained) == part.piece.size
    np.testing.assert_array_equal(initial, -1 - counted(part.piece.size))


@given(part=any_part())
def test_what_is_frozen_is_not_trained_and_all_else_is(part: SubModel) -> None:
    for name, trained in part.piece.unflatten(part.trained.astype(np.float32)).items():
        assert (trained == (name not in part.frozen)).all()


def test_whole_holds_everything_in_place() -> None:
    part = whole(NET)
    np.testing.assert_array_equal(part.held, np.arange(NET.size))
    np.testing.assert_array_equal(part.slots, np.arange(NET.size))
    assert part.piece == NET
    assert part.trained.all()


def test_leading_indices_by_hand() -> None:
    layout, piece = Layout(("w", "b", "s"), ((3, 4), (3,), ())), Layout(("s", "w", "b"), ((), (2, 3), (2,)))
    part = by_shape(layout, piece)
    assert part.held.tolist() == [0, 1, 2, 4, 5, 6, 12, 13, 15]
    assert part.slots.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_a_rolled_window_wraps_around() -> None:
    layout, piece = Layout(("w", "b"), ((3, 4), (3,))), Layout(("w", "b"), ((2, 3), (2,)))
    part = by_shape(layout, piece, start={"w": (2, 3), "b": (-1,)})
    assert [axis.tolist() for axis in part.shared["w"]] == [[2, 0], [3, 0, 1]]
    assert part.held.tolist() == [0, 1, 3, 8, 9, 11, 12, 14]
    # The piece keeps the window's order: its first row is the whole's row 2, its first column the whole's column 3.
    assert part.slots.tolist() == [4, 5, 3, 1, 2, 0, 7, 6]


@given(extent=st.integers(1, 9), share=st.integers(1, 9), far=st.integers(-20, 20))
def test_rolling_windows_visit_every_place_equally_often(extent: int, share: int, far: int) -> None:
    size = min(share, extent)
    layout, piece = Layout(("w",), ((extent, 2),)), Layout(("w",), ((size, 2),))
    visits = np.zeros(layout.size)
    for start in range(far, far + extent):
        visits[by_shape(layout, piece, start={"w": (start, 0)}).held] += 1
    assert (visits == size).all()


def test_a_depth_prefix_is_the_same_by_shape_and_by_keys() -> None:
    prefix = front(DEEP, ["blocks.0.weight", "blocks.1.weight", "exits.0.bias", "exits.1.bias"])
    assert prefix.held.size == 24 + 16 + 2 + 2
    assert by_shape(DEEP, prefix.piece).digest == prefix.digest
    assert keys(DEEP, ["*.0.*", "*.1.*"]).digest == prefix.digest


def test_a_private_head_is_in_the_piece_and_not_held() -> None:
    part = keys(NET, ["*"], private=["head"])
    assert part.piece == NET
    assert part.private == {"head"}
    assert part.held.tolist() == [*range(76), 84]
    # Neither its shape nor its name needs to be the whole's.
    for name in ("head", "own"):
        narrow = by_shape(NET, Layout(("conv", name), ((2, 2, 3, 3), (7, 7))), private=[name])
        assert (narrow.held.size, narrow.private_of(counted(36 + 49)).tolist()) == (36, list(range(36, 85)))


def test_a_private_pattern_may_name_what_only_the_whole_has() -> None:
    shallow = by_shape(DEEP, Layout(("blocks.0.weight", "exits.0.bias"), ((4, 6), (2,))), private=["exits.[02].*"])
    assert shallow.private == {"exits.0.bias"}
    assert by_shape(DEEP, Layout(("blocks.0.weight",), ((4, 6),)), private=["exits.2.bias"]).private == frozenset()


def test_an_adapter_shares_one_factor_and_freezes_the_rest() -> None:
    part = adapter(ADAPTED, ["*.lora_b"])
    assert part.held.tolist() == list(range(48, 60))
    assert part.trained.tolist() == [False] * 48 + [True] * 12
    assert part.frozen.keys() == {"layer.base", "layer.lora_a"}


def test_everything_frozen_or_shared_is_whole_where_everything_is_shared() -> None:
    assert adapter(ADAPTED, ["*"]).digest == whole(ADAPTED).digest


def cnn(*channels: int) -> Layout:
    """HeteroFL's CNN for 28x28 digits: 3x3 convolutions with bias, norms with weight and bias, a linear layer."""
    named: dict[str, tuple[int, ...]] = {}
    for k, (before, after) in enumerate(zip((1, *channels), channels, strict=False)):
        named |= {f"{k}.conv.weight": (after, before, 3, 3), f"{k}.conv.bias": (after,)}
        named |= {f"{k}.norm.weight": (after,), f"{k}.norm.bias": (after,)}
    named |= {"linear.weight": (10, channels[-1]), "linear.bias": (10,)}
    return Layout(tuple(named), tuple(named.values()))


@pytest.mark.parametrize(
    ("divisor", "published"), [(1, 1_556_874), (2, 391_370), (4, 98_922), (8, 25_274), (16, 6_594)]
)
def test_width_slices_hold_the_published_numbers_of_parameters(divisor: int, published: int) -> None:
    """HeteroFL (Diao, Ding, Tarokh, ICLR 2021), MNIST CNN, models a to e."""
    part = by_shape(cnn(64, 128, 256, 512), cnn(*(width // divisor for width in (64, 128, 256, 512))))
    assert part.held.size == published


W = Layout(("w",), ((3, 4),))
SMALL = Layout(("w",), ((2, 2),))
GOOD: dict[str, Any] = {"whole": W, "piece": SMALL, "shared": {"w": axes((0, 2), (3, 1))}}
MIXED = Layout(("w", "x"), ((2, 2), (1,)))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"shared": {"w": axes((0, 3), (3, 1))}}, "outside of 0..2"),
        ({"shared": {"w": axes((0, -1), (3, 1))}}, "outside"),
        ({"shared": {"w": axes((2, 2), (3, 1))}}, "twice"),
        ({"shared": {"w": axes((0, 1, 2), (3, 1))}}, "of 2 integers"),
        ({"shared": {"w": axes((0, 1))}}, "each of its 2 dimensions"),
        ({"shared": {"w": axes((0, 1), (0, 1), (0, 1))}}, "each of its 2 dimensions"),
        ({"shared": {"w": (np.array([0.0, 1.0]), np.array([0, 1]))}}, "integers"),
        ({"shared": {"w": (np.array([True, False]), np.array([0, 1]))}}, "integers"),
        ({"shared": {"w": (np.array([[0, 1]]), np.array([0, 1]))}}, "integers"),
        ({"shared": {"v": axes((0, 1), (0, 1))}}, "must be its piece's"),
        ({"piece": Layout(("v",), ((2, 2),)), "shared": {"v": axes((0, 1), (0, 1))}}, "no parameter 'v'"),
        ({"piece": MIXED, "frozen": {"x": axes((0,))}}, "no parameter 'x'"),
        ({"piece": Layout(("w",), ((4,),)), "shared": {"w": axes((0, 1), (0, 1))}}, "dimensions"),
        ({"piece": MIXED}, "must be its piece's"),
        ({"private": frozenset({"w"})}, "each of them once"),
        ({"frozen": {"w": axes((0, 1), (0, 1))}}, "each of them once"),
        ({"private": frozenset({"x"})}, "must be its piece's"),
    ],
)
def test_a_part_that_does_not_fit_is_refused(changed: Mapping[str, Any], why: str) -> None:
    SubModel(**GOOD)
    with pytest.raises(ValueError, match=why):
        SubModel(**{**GOOD, **changed})


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (partial(by_shape, W, Layout(("w",), ((4, 2),))), "twice"),
        (partial(by_shape, W, Layout(("w",), ((4, 2),)), start={"w": (1, 0)}), "twice"),
        (partial(by_shape, W, Layout(("w",), ((2,),))), "dimensions"),
        (partial(by_shape, W, Layout(("v",), ((2, 2),))), "'v'"),
        (partial(by_shape, W, SMALL, start={"w": (1,)}), "dimensions"),
        (partial(by_shape, W, SMALL, start={"v": (1,)}), "'v'"),
        (partial(by_shape, NET, NET, private=["head"], start={"head": (1, 0)}), "'head'"),
        (partial(front, W, ["v"]), "'v'"),
        (partial(front, W, ["*"]), r"'\*'"),
    ],
)
def test_a_piece_that_does_not_fit_is_refused(make: Callable[[], SubModel], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        make()


@pytest.mark.parametrize(
    "make",
    [
        partial(keys, NET, ["*"], private=["haed"]),
        partial(keys, NET, ["blocks.*"]),
        partial(by_shape, NET, NET, private=["HEAD"]),
        partial(adapter, NET, ["*.lora_b"]),
        partial(keys, NET, ["*"], private=["*"]),
        partial(by_shape, NET, NET, private=["*"]),
    ],
)
def test_a_pattern_without_a_match_and_a_part_that_shares_nothing_are_refused(make: Callable[[], SubModel]) -> None:
    with pytest.raises(ConfigError) as refusal:
        make()
    assert len(refusal.value.lines()) == 2
    assert all("\n" not in line for line in refusal.value.lines())


def test_other_shapes_and_types_are_refused() -> None:
    part = keys(NET, ["*"], private=["head"])
    held, initial, private = counted(part.held.size), counted(NET.size), counted(8)
    for wrong in (
        (held[1:], initial, private),
        (held, initial[1:], private),
        (held, initial, private[1:]),
        (held.astype(np.float64), initial, None),
        (held[np.newaxis], initial, None),
    ):
        with pytest.raises(ValueError, match="not float32 of shape"):
            part.piece_of(*wrong)
    for cut in (part.shared_of, part.private_of):
        with pytest.raises(ValueError, match="not float32 of shape"):
            cut(initial[1:])


def test_a_part_does_not_change_with_the_arrays_it_was_made_of() -> None:
    box = axes((0, 2), (3, 1))
    shared = {"w": box}
    part = SubModel(W, SMALL, shared)
    box[0][0] = 1
    shared.clear()
    assert part.held.tolist() == [1, 3, 9, 11]
    for array in (*part.shared["w"], part.held, part.slots, part.trained):
        assert not array.flags.writeable


THREE = Layout(("w", "f", "p"), ((2, 2), (2,), (2,)))
BASE: dict[str, Any] = {
    "whole": Layout(("w", "f", "v", "g"), ((3, 4), (3,), (3, 4), (3,))),
    "piece": THREE,
    "shared": {"w": axes((0, 2), (3, 1))},
    "frozen": {"f": axes((0, 1))},
    "private": frozenset({"p"}),
}


def test_equal_parts_have_equal_digests() -> None:
    narrow = {"w": tuple(axis.astype(np.int32) for axis in BASE["shared"]["w"])}
    assert SubModel(**BASE).digest == SubModel(**BASE).digest == SubModel(**{**BASE, "shared": narrow}).digest
    assert len(SubModel(**BASE).digest) == 32


@pytest.mark.parametrize(
    "changed",
    [
        {"shared": {"w": axes((0, 1), (3, 1))}},
        {"shared": {"w": axes((0, 2), (3, 2))}},
        {"shared": {"w": axes((2, 0), (3, 1))}},
        {"shared": {"w": axes((0, 2), (1, 3))}},
        {"frozen": {"f": axes((0, 2))}},
        {"piece": Layout(("v", "f", "p"), THREE.shapes), "shared": {"v": BASE["shared"]["w"]}},
        {"piece": Layout(("w", "g", "p"), THREE.shapes), "frozen": {"g": axes((0, 1))}},
        {"piece": Layout(("w", "f", "q"), THREE.shapes), "private": frozenset({"q"})},
        {"piece": Layout(("w", "f", "p"), ((2, 2), (2,), (3,)))},
        {"piece": Layout(("f", "w", "p"), ((2,), (2, 2), (2,)))},
        {"frozen": {}, "private": frozenset({"f", "p"})},
        {"shared": {"w": BASE["shared"]["w"], "f": axes((0, 1))}, "frozen": {}},
    ],
)
def test_any_change_changes_the_digest(changed: Mapping[str, Any]) -> None:
    assert SubModel(**{**BASE, **changed}).digest != SubModel(**BASE).digest


def test_what_is_shared_and_what_is_frozen_are_told_apart() -> None:
    layout, box = Layout(("a", "b"), ((3,), (3,))), axes(range(3))
    one = SubModel(layout, layout, {"a": box}, {"b": box})
    other = SubModel(layout, layout, {"b": box}, {"a": box})
    assert one.digest != other.digest
