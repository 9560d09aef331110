"""Where each parameter of a model lies in one flat vector: the coordinates that everyone agrees on."""

import hashlib
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import rfc8785

from strategies.contribution import Vector

_FORMAT = "collegium/layout/v1"


@dataclass(frozen=True)
class Layout:
    """Names and shapes of a model's parameters, in their order in the flat vector; public.

    Each parameter is laid out row by row (C order), one after another without gaps.

    Attributes:
      names: Unique, at least one.
      shapes: One per name; every dimension at least 1; ``()`` is a single number.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names) or len(self.names) != len(self.shapes):
            raise ValueError("a layout needs at least one parameter, unique names and one shape per name")
        if any(extent < 1 for shape in self.shapes for extent in shape):
            raise ValueError("every dimension of a parameter must be at least 1")

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many coordinates each parameter takes."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each parameter starts in the flat vector."""
        return tuple(itertools.accumulate(self.sizes[:-1], initial=0))

    @property
    def size(self) -> int:
        """``d``, the length of the flat vector."""
        return sum(self.sizes)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the canonical description; equal exactly for equal layouts."""
        described: dict[str, Any] = {"format": _FORMAT, "dtype": "float32", "names": self.names, "shapes": self.shapes}
        return hashlib.sha256(rfc8785.dumps(described)).hexdigest()

    def flatten(self, parameters: Mapping[str, Vector]) -> Vector:
        """Lays named arrays out in one vector.

        Args:
          parameters: Exactly the layout's names, in any order, each float32 of its shape.

        Returns: A new vector, shape ``(d,)``.
        Raises: ValueError: Other names, shapes or types: the caller's bug.
        """
        if set(parameters) != set(self.names):
            raise ValueError(f"got parameters {sorted(parameters)}, the layout has {sorted(self.names)}")
        for name, shape in zip(self.names, self.shapes, strict=True):
            array = parameters[name]
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name!r} is {array.dtype} of shape {array.shape}, not float32 of shape {shape}")
        return np.concatenate([parameters[name].reshape(-1) for name in self.names])

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Cuts a vector into named arrays; undoes `flatten`.

        Args:
          vector: Shape ``(d,)``, float32.

        Returns: New arrays, in the layout's order.
        Raises: ValueError: Another shape or type: the caller's bug.
        """
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            raise ValueError(f"got {vector.dtype} of shape {vector.shape}, not float32 of shape ({self.size},)")
        pieces = zip(self.names, self.shapes, self.offsets, self.sizes, strict=True)
        return {name: vector[start : start + size].reshape(shape).copy() for name, shape, start, size in pieces}
