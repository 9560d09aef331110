"""The model as a file: ``safetensors``, by the names of its parameters; nothing in it is pickled."""

import numpy as np
import safetensors
import safetensors.numpy

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.job import Job
from strategies.models import build, layout_of


def model_file(job: Job, model: Vector) -> bytes:
    """Returns the bytes of the file.

    Args:
      job: Whose model it is.
      model: Parameters, shape ``(d,)``.
    """
    layout = layout_of(build(job.task.model, job.task.n_inputs, job.seed))
    arrays = {name: np.ascontiguousarray(array) for name, array in layout.unflatten(model).items()}
    return bytes(safetensors.numpy.save(arrays))


def read_model(job: Job, data: bytes) -> Vector:
    """Reads what ``model_file`` wrote.

    Args:
      job: Whose model it is.
      data: Untrusted.

    Returns: Parameters, shape ``(d,)``.
    Raises: ConfigError: Not a model of this job.
    """
    layout = layout_of(build(job.task.model, job.task.n_inputs, job.seed))
    try:
        return layout.flatten(safetensors.numpy.load(data))
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise ConfigError(f"the model file does not hold a model of {job.name}: {error}") from error
