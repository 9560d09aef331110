"""The model as a file: ``safetensors``, by the names of its parameters; nothing in it is pickled."""

import numpy as np
import safetensors.numpy

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
