"""The models that sites train, as torch modules, and their parameters as one flat vector.

Torch is confined to this module and to the packages that train; everything else in `strategies` sees vectors.
"""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from privacy.errors import ConfigError
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.task import GROUP, ModelSpec

_SEEDS = 2**32


def build(spec: ModelSpec, n_inputs: int, seed: int) -> nn.Module:
    """Builds a model, float32, on the CPU; it takes records ``(b, n_inputs)``, an image's values row by row.

    Guarantees: a function of its arguments alone; torch's global generators are left as they were. With ``init``
    "torch", the weights are those of ``torch.manual_seed(seed)`` followed by building the layers in order, which is
    how FLamby's released runs start. The parameters of ``spec.part(...)`` have the names of the whole model's, or some
    of them, and are leading slices of theirs in shape.

    Args:
      spec: What to build. Gives logits ``(b, outputs)``, with exits ``(b, e, outputs)``, the last exit last.
      n_inputs: Width of an encoded record.
      seed: In ``[0, 2**32)``: torch keeps no more of it. Not for privacy noise.

    Raises: ConfigError: Sizes that make no model, a seed out of range, or hidden layers that start at zero.
    """
    spec.check(n_inputs)
    if not 0 <= seed < _SEEDS:
        raise ConfigError(f"seed {seed} is out of range", hint=f"Choose one from 0 to {_SEEDS - 1}.")
    with torch.random.fork_rng(devices=[]):
        # The CPU generator alone: torch.manual_seed would reseed the accelerators too, and nothing would restore them.
        torch.default_generator.manual_seed(seed)
        module = _layers(spec, n_inputs)
    if spec.init == "zero":
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
    return module


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


class _Exits(nn.Module):
    """Blocks one after another, a head at each: the first few with their heads are a model too (DepthFL, ICLR 2023)."""

    def __init__(self, unflatten: nn.Module, blocks: Sequence[nn.Module], exits: Sequence[nn.Module]) -> None:
        super().__init__()
        self.unflatten, self.blocks, self.exits = unflatten, nn.ModuleList(blocks), nn.ModuleList(exits)

    def forward(self, x: Tensor) -> Tensor:
        """Returns every exit's logits, shape ``(b, e, outputs)``, of records ``(b, n_inputs)``."""
        value, logits = self.unflatten(x), []
        for block, head in zip(self.blocks, self.exits, strict=True):
            value = block(value)
            logits.append(head(value))
        return torch.stack(logits, dim=1)


def _layers(spec: ModelSpec, n_inputs: int) -> nn.Module:
    if spec.kind == "logistic":
        return nn.Linear(n_inputs, spec.outputs)
    unflatten = nn.Identity() if spec.image is None else nn.Unflatten(1, spec.image)
    sizes = (n_inputs if spec.image is None else spec.image[0], *spec.hidden)
    blocks = [
        _dense(n_in, n_out) if spec.image is None else _convolution(n_in, n_out, pool=index > 0)
        for index, (n_in, n_out) in enumerate(pairwise(sizes))
    ]
    if spec.exits:
        return _Exits(unflatten, blocks, [_head(spec, size) for size in spec.hidden])
    if spec.image is None:
        # Flat, not block by block: the names that a model of one hidden layer has always had.
        return nn.Sequential(*(layer for block in blocks for layer in block), _head(spec, spec.hidden[-1]))
    return nn.Sequential(unflatten, *blocks, _head(spec, spec.hidden[-1]))


def _dense(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.ReLU())


def _convolution(n_in: int, n_out: int, *, pool: bool) -> nn.Sequential:
    """Pools first, so that what an exit sees does not depend on whether another block follows."""
    layers = OrderedDict[str, nn.Module](pool=nn.MaxPool2d(2)) if pool else OrderedDict[str, nn.Module]()
    layers["conv"] = nn.Conv2d(n_in, n_out, 3, padding=1)
    # A fixed number of channels a group: the first groups of a wide model are the groups of a narrow one.
    layers["norm"] = nn.GroupNorm(n_out // GROUP, n_out)
    layers["relu"] = nn.ReLU()
    return nn.Sequential(layers)


def _head(spec: ModelSpec, size: int) -> nn.Module:
    linear = nn.Linear(size, spec.outputs)
    if spec.image is None:
        return linear
    return nn.Sequential(OrderedDict(pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), linear=linear))
