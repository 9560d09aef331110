"""Which part of a model one agent holds: a set of coordinates of the whole, named tensor by tensor.

A width slice, a depth prefix, a private head, an adapter and the front of a cut model are all the same thing here: for
each tensor, one index array per dimension. Symbols: ``h`` coordinates that a part shares, ``p`` private ones.
Everything in this module is public; parameters are arguments of the methods and are not kept.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from privacy.errors import ConfigError
from privacy.secagg.encoding import digest
from strategies.contribution import Vector
from strategies.layout import Layout

Indices: TypeAlias = NDArray[np.int64]
"""Places along one dimension, without repetition; in any order, since a rolled window wraps around."""

Box: TypeAlias = tuple[Indices, ...]
"""One index array per dimension of a tensor: the coordinates whose place is listed in every dimension."""

_Item = TypeVar("_Item", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SubModel:
    """The part of the whole model that one agent holds. Public; the index arrays are copied and read-only.

    Attributes:
      whole: Layout of the whole model.
      piece: Layout of the agent's own model: its shared, frozen and private parameters, in its own order.
      shared: For each parameter that is trained and summed, where its entries lie in the whole's parameter.
      frozen: The same for those that keep the common initial values: not trained, not sent.
      private: Parameters that are trained and never leave the agent; the whole need not have them.

    Raises:
      ValueError: The three do not make up the piece, or an index array does not fit: the caller's bug.
      ConfigError: Nothing is shared.
    """

    whole: Layout
    piece: Layout
    shared: Mapping[str, Box]
    frozen: Mapping[str, Box] = field(default_factory=dict)
    private: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        named = [*self.shared, *self.frozen, *self.private]
        if len(set(named)) != len(named) or set(named) != set(self.piece.names):
            raise ValueError("a part's shared, frozen and private parameters must be its piece's, each of them once")
        if not self.shared:
            raise ConfigError(
                "an agent's part shares no parameter with anybody",
                hint="Leave at least one parameter that is neither private nor frozen.",
            )
        whole = dict(zip(self.whole.names, self.whole.shapes, strict=True))
        piece = dict(zip(self.piece.names, self.piece.shapes, strict=True))
        for kind in ("shared", "frozen"):
            given: Mapping[str, Box] = getattr(self, kind)
            if not given.keys() <= whole.keys():
                raise ValueError(f"the whole model has no parameter {min(given.keys() - whole.keys())!r}")
            checked = {name: _checked(name, box, whole[name], piece[name]) for name, box in given.items()}
            object.__setattr__(self, kind, checked)

    @cached_property
    def held(self) -> NDArray[np.int64]:
        """Where the shared coordinates lie in the whole's flat vector: shape ``(h,)``, ascending, read-only."""
        return self._laid_out[0]

    @cached_property
    def slots(self) -> NDArray[np.int64]:
        """Where the piece's flat vector has each entry of `held`: shape ``(h,)``, read-only."""
        return self._laid_out[1]

    @cached_property
    def trained(self) -> NDArray[np.bool_]:
        """False where the piece's flat vector is frozen: shape ``(piece.size,)``, read-only."""
        return _read_only(~self._mask(self.frozen))

    def piece_of(self, held_values: Vector, initial: Vector, private: Vector | None) -> Vector:
        """Returns the parameters that the agent starts a round from: a new vector, shape ``(piece.size,)``.

        Args:
          held_values: The whole model's values at `held`, shape ``(h,)``.
          initial: The piece's own initial parameters, shape ``(piece.size,)``; what is frozen comes from them.
          private: What `private_of` returned after the agent's last round, shape ``(p,)``; ``None`` in its first
            round, where private parameters are the initial ones. Secret.

        Raises: ValueError: Another shape or type: the caller's bug.
        """
        _expect(held_values, self.held.size, "the shared values")
        _expect(initial, self.piece.size, "the initial parameters")
        made = initial.copy()
        made[self.slots] = held_values
        if private is not None:
            _expect(private, self._private_slots.size, "the private values")
            made[self._private_slots] = private
        return made

    def shared_of(self, piece: Vector) -> Vector:
        """Returns the shared entries of a piece's flat vector, in the order of `held`: shape ``(h,)``."""
        _expect(piece, self.piece.size, "the piece")
        return piece[self.slots]

    def private_of(self, piece: Vector) -> Vector:
        """Returns the private entries of a piece's flat vector, in its order: shape ``(p,)``. Secret."""
        _expect(piece, self.piece.size, "the piece")
        return piece[self._private_slots]

    @cached_property
    def digest(self) -> bytes:
        """32 bytes; equal exactly for equal pieces, index arrays and names."""
        private = digest("plan/sub-models/private", *(name.encode() for name in sorted(self.private)))
        boxes = (_boxes_digest(self.shared), _boxes_digest(self.frozen))
        return digest("plan/sub-models/part", self.piece.digest.encode(), *boxes, private)

    @cached_property
    def _laid_out(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        # Ascending index arrays give ascending positions: only the axes are sorted, never the coordinates.
        starts = dict(zip(self.piece.names, self.piece.offsets, strict=True))
        shapes = dict(zip(self.piece.names, self.piece.shapes, strict=True))
        held, slots = [], []
        for name, shape, start in zip(self.whole.names, self.whole.shapes, self.whole.offsets, strict=True):
            if name not in self.shared:
                continue
            orders = tuple(axis.argsort() for axis in self.shared[name])
            ascending = tuple(axis[order] for axis, order in zip(self.shared[name], orders, strict=True))
            held.append(start + _positions(shape, ascending))
            slots.append(starts[name] + _positions(shapes[name], orders))
        return _read_only(np.concatenate(held)), _read_only(np.concatenate(slots))

    @cached_property
    def _private_slots(self) -> NDArray[np.int64]:
        return _read_only(np.flatnonzero(self._mask(self.private)))

    def _mask(self, names: Collection[str]) -> NDArray[np.bool_]:
        return np.repeat([name in names for name in self.piece.names], self.piece.sizes)


def whole(layout: Layout) -> SubModel:
    """Returns the part that is the whole model."""
    return front(layout, layout.names)


def by_shape(
    layout: Layout, piece: Layout, *, private: Iterable[str] = (), start: Mapping[str, tuple[int, ...]] | None = None
) -> SubModel:
    """Returns the part whose parameters are a window of the whole's: the leading indices of each dimension.

    Leading indices agree from layer to layer through convolutions, linear and residual layers, group norms with a
    fixed number of channels a group, and a channel-major flatten; not through concatenation or fused projections,
    which need index arrays of their own. A piece with fewer parameters is a depth prefix.

    Args:
      layout: Of the whole model.
      piece: Of the agent's model; no parameter larger than the whole's of that name.
      private: Glob patterns of the names that never leave the agent; the whole need not have them.
      start: Where the window of a parameter starts in each dimension; it wraps around. Elsewhere it starts at 0.

    Raises:
      ValueError: The piece does not fit into the whole: the caller's bug.
      ConfigError: A pattern matches nothing, or nothing is shared.

    See: Diao, Ding, Tarokh, HeteroFL, ICLR 2021, §3; Alam et al., FedRolex, NeurIPS 2022, §3 (rolling windows);
    Kim et al., DepthFL, ICLR 2023 (depth prefixes).
    """
    start = start or {}
    # A pattern may name a block that only deeper pieces have.
    own = _matching(private, {*piece.names, *layout.names}).intersection(piece.names)
    extents = dict(zip(layout.names, layout.shapes, strict=True))
    shared: dict[str, Box] = {}
    for name, shape in zip(piece.names, piece.shapes, strict=True):
        if name in own:
            continue
        full = extents.get(name, ())
        first = start.get(name, (0,) * len(shape))
        if name not in extents or not len(full) == len(shape) == len(first):
            raise ValueError(f"the whole model has no parameter {name!r} with the dimensions of {shape} and {first}")
        shared[name] = tuple(
            (np.arange(size, dtype=np.int64) + at) % extent for size, at, extent in zip(shape, first, full, strict=True)
        )
    if not start.keys() <= shared.keys():
        raise ValueError(f"no shared parameter {min(start.keys() - shared.keys())!r} whose window could start anywhere")
    return SubModel(layout, piece, shared, private=own)


def keys(layout: Layout, patterns: Iterable[str], *, private: Iterable[str] = ()) -> SubModel:
    """Returns the part that consists of whole tensors: depth prefixes, private heads (FedPer) or norms (FedBN).

    Args:
      layout: Of the whole model.
      patterns: Glob patterns of the shared names.
      private: Glob patterns of those that never leave the agent; they win over ``patterns``.

    Raises: ConfigError: A pattern matches nothing, or nothing is shared.
    See: Arivazhagan et al., Federated Learning with Personalization Layers, 2019; Li et al., FedBN, ICLR 2021.
    """
    own = _matching(private, layout.names)
    shared = _matching(patterns, layout.names) - own
    return SubModel(layout, _cut(layout, shared | own), _full(layout, shared), private=own)


def front(layout: Layout, names: Iterable[str]) -> SubModel:
    """Returns the part that holds the named tensors whole: a site's piece of a cut model.

    Raises: ValueError: The layout has no such name: the caller's bug.
    See: Thapa et al., SplitFed, AAAI 2022.
    """
    chosen = frozenset(names)
    if not chosen <= set(layout.names):
        raise ValueError(f"the whole model has no parameter {min(chosen.difference(layout.names))!r}")
    return SubModel(layout, _cut(layout, chosen), _full(layout, chosen))


def adapter(layout: Layout, patterns: Iterable[str]) -> SubModel:
    """Returns the part that trains the matching tensors and freezes all others at their common initial values.

    With factors A frozen and B shared, the sum of updates is the update of the sum, so it fits a masked sum.

    Raises: ConfigError: A pattern matches nothing.
    See: Sun et al., FFA-LoRA, ICLR 2024.
    """
    shared = _matching(patterns, layout.names)
    return SubModel(layout, layout, _full(layout, shared), _full(layout, shared.symmetric_difference(layout.names)))


def _matching(patterns: Iterable[str], names: Collection[str]) -> frozenset[str]:
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:  # passed over, a misspelt private head would be sent
            raise ConfigError(
                f"no parameter of the model matches {pattern!r}", hint=f"Its parameters are {', '.join(sorted(names))}."
            )
        found |= matching
    return frozenset(found)


def _cut(layout: Layout, names: Collection[str]) -> Layout:
    kept = [(name, shape) for name, shape in zip(layout.names, layout.shapes, strict=True) if name in names]
    return Layout(tuple(name for name, _ in kept), tuple(shape for _, shape in kept))


def _full(layout: Layout, names: Collection[str]) -> dict[str, Box]:
    shapes = zip(layout.names, layout.shapes, strict=True)
    return {name: tuple(np.arange(n, dtype=np.int64) for n in shape) for name, shape in shapes if name in names}


def _checked(name: str, box: Box, whole_shape: tuple[int, ...], piece_shape: tuple[int, ...]) -> Box:
    if not len(box) == len(whole_shape) == len(piece_shape):
        raise ValueError(f"{name!r} needs one index array for each of its {len(whole_shape)} dimensions")
    for axis, extent, size in zip(box, whole_shape, piece_shape, strict=True):
        if axis.shape != (size,) or axis.dtype.kind != "i":
            raise ValueError(f"{name!r} has an index array that is not of {size} integers")
        if axis.min() < 0 or axis.max() >= extent:
            raise ValueError(f"{name!r} has an index outside of 0..{extent - 1}")
        seen = np.zeros(extent, np.bool_)
        seen[axis] = True
        if np.count_nonzero(seen) != size:
            raise ValueError(f"{name!r} has the same index twice in one dimension")
    return tuple(_read_only(np.array(axis, np.int64)) for axis in box)


def _positions(shape: tuple[int, ...], box: Box) -> NDArray[np.int64]:
    """Returns the flat positions of a box in a tensor of ``shape``, row by row."""
    found = np.zeros((1,), np.int64)
    for extent, axis in zip(shape, box, strict=True):
        found = (found[:, np.newaxis] * extent + axis).reshape(-1)
    return found


def _boxes_digest(boxes: Mapping[str, Box]) -> bytes:
    tensors = (
        digest("plan/sub-models/box", name.encode(), *(axis.astype("<i8").tobytes() for axis in boxes[name]))
        for name in sorted(boxes)
    )
    return digest("plan/sub-models/boxes", *tensors)


def _expect(vector: Vector, size: int, what: str) -> None:
    if vector.shape != (size,) or vector.dtype != np.float32:
        raise ValueError(f"{what} are {vector.dtype} of shape {vector.shape}, not float32 of shape ({size},)")


def _read_only(array: NDArray[_Item]) -> NDArray[_Item]:
    array.setflags(write=False)
    return array
