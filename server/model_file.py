"""The model as a file: ``safetensors``, by the names of its parameters; nothing in it is pickled.

Of a cut model the file has what the sites trained and summed; the piece in between is its holder's.
"""

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.job import Job
from strategies.layout import Layout
from strategies.models import build, layout_of


def model_file(job: Job, model: Vector) -> bytes:
    """Returns the bytes of the file.

    Args:
      job: Whose model it is.
      model: Parameters, shape ``(d,)``.
    """
    layout, places = _delivered(job)
    arrays = {name: np.ascontiguousarray(array) for name, array in layout.unflatten(model[places]).items()}
    return bytes(safetensors.numpy.save(arrays))


def read_model(job: Job, data: bytes) -> Vector:
    """Reads what ``model_file`` wrote.

    Args:
      job: Whose model it is.
      data: Untrusted.

    Returns: Parameters, shape ``(d,)``; those that the file does not have are the initial ones.
    Raises: ConfigError: Not a model of this job.
    """
    layout, places = _delivered(job)
    model = job.initial
    try:
        model[places] = layout.flatten(safetensors.numpy.load(data))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ConfigError(f"the model file does not hold a model of {job.name}: {error}") from error
    return model


def parameters(job: Job) -> int:
    """Returns how many parameters the file has."""
    return _delivered(job)[0].size


def _delivered(job: Job) -> tuple[Layout, slice | NDArray[np.int64]]:
    if job.chain is None:
        return layout_of(build(job.task.model, job.task.n_inputs, job.seed)), slice(None)
    ends = job.part_of(job.sites[0])
    return ends.piece, ends.held
