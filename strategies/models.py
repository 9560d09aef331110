"""The models that sites train, as torch modules, and their parameters as one flat vector.

Torch is confined to this module and to the packages that train; everything else in `strategies` sees vectors.
"""

from functools import lru_cache

import torch
from torch import nn

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.task import ModelSpec

_SEEDS = 2**32


def build(spec: ModelSpec, n_inputs: int, seed: int) -> nn.Module:
    """Builds a model with one logit out, float32, on the CPU.

    Guarantees: a function of its arguments alone; torch's global generators are left as they were. With ``init``
    "torch", the weights are those of ``torch.manual_seed(seed)`` followed by building the layers in order, which is
    how FLamby's released runs start.

    Args:
      spec: ``logistic`` is one linear layer, ``mlp`` is linear, ReLU, linear.
      n_inputs: Width of an encoded record.
      seed: In ``[0, 2**32)``: torch keeps no more of it. Not for privacy noise.

    Raises: ConfigError: Widths that make no model, a seed out of range, or an ``mlp`` that starts at zero.
    """
    _require_buildable(spec, n_inputs, seed)
    with torch.random.fork_rng(devices=[]):
        # The CPU generator alone: torch.manual_seed would reseed the accelerators too, and nothing would restore them.
        torch.default_generator.manual_seed(seed)
        module = _layers(spec, n_inputs)
    if spec.init == "zero":
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
    return module


@lru_cache(maxsize=8)
def size_of(spec: ModelSpec, n_inputs: int) -> int:
    """Returns ``d``, the number of parameters of a model."""
    return layout_of(build(spec, n_inputs, seed=0)).size


def layout_of(module: nn.Module) -> Layout:
    """Returns the layout of a module's parameters, in torch's order."""
    named = list(module.named_parameters())
    return Layout(tuple(name for name, _ in named), tuple(tuple(parameter.shape) for _, parameter in named))


def to_vector(module: nn.Module) -> Vector:
    """Returns a copy of a module's parameters, shape ``(d,)``.

    Raises: ValueError: A parameter that is not float32: the caller's bug.
    """
    arrays = {name: parameter.detach().cpu().numpy() for name, parameter in module.named_parameters()}
    return layout_of(module).flatten(arrays)


def load_vector(module: nn.Module, vector: Vector) -> None:
    """Sets a module's parameters in place.

    Args:
      module: Any module with float32 parameters.
      vector: Shape ``(d,)``, float32; copied.

    Raises: ValueError: A vector of another shape or type: the caller's bug.
    """
    arrays = layout_of(module).unflatten(vector)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(torch.from_numpy(arrays[name]))


def _require_buildable(spec: ModelSpec, n_inputs: int, seed: int) -> None:
    if n_inputs < 1:
        raise ConfigError(f"a model with {n_inputs} inputs", hint="Declare at least one feature.")
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed {seed} is out of range", hint=f"Choose one from 0 to {_SEEDS - 1}.")
    if spec.kind == "logistic" and spec.hidden != 0:
        raise ConfigError("a logistic model has no hidden layer", hint="Set hidden to 0, or the model to mlp.")
    if spec.kind == "mlp" and spec.hidden < 1:
        raise ConfigError(f"an mlp with {spec.hidden} hidden units", hint="Set hidden to at least 1.")
    if spec.kind == "mlp" and spec.init == "zero":
        raise ConfigError(
            "an mlp cannot start at zero: its hidden units would stay equal for ever", hint='Set init to "torch".'
        )


def _layers(spec: ModelSpec, n_inputs: int) -> nn.Module:
    if spec.kind == "logistic":
        return nn.Linear(n_inputs, 1)
    return nn.Sequential(nn.Linear(n_inputs, spec.hidden), nn.ReLU(), nn.Linear(spec.hidden, 1))
