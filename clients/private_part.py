"""The parameters that a site never sends, in a file of its own: its half of the model it works with.

Written when an attempt was paid for and its answer may leave, whole or not at all.
"""

from pathlib import Path

import numpy as np
import safetensors.numpy

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.sub_models import SubModel


def write_private(path: Path, part: SubModel, values: Vector) -> None:
    """Replaces the file by one with the private parameters, by their names in the piece.

    Args:
      path: In a folder that exists.
      part: Which parameters are private.
      values: Shape ``(p,)``, in the order of the piece. Secret.
    """
    arrays, start = {}, 0
    for name, shape, size in zip(part.piece.names, part.piece.shapes, part.piece.sizes, strict=True):
        if name in part.private:
            arrays[name] = np.ascontiguousarray(values[start : start + size].reshape(shape))
            start += size
    beside = path.with_suffix(".part")
    beside.write_bytes(safetensors.numpy.save(arrays))
    beside.replace(path)


def read_private(path: Path, part: SubModel) -> Vector:
    """Reads them back, shape ``(p,)``.

    Raises: ConfigError: No such file, or not with these parameters.
    """
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigError(f"{path}: the private parameters cannot be read: {error}") from None
    expected = {
        name: shape for name, shape in zip(part.piece.names, part.piece.shapes, strict=True) if name in part.private
    }
    if {name: array.shape for name, array in arrays.items()} != expected:
        raise ConfigError(f"{path}: holds other parameters than {', '.join(expected)}")
    return np.concatenate([arrays[name].reshape(-1).astype(np.float32) for name in expected])
