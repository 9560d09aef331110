"""The gradients of one layer, record by record or unit by unit: their norms, and their sum under factors.

A linear layer's gradient for a record is the outer product of what comes in and what goes back. Its norm is the product
of two norms, and the weighted sum over records one matrix product, so it is never formed (Goodfellow, arXiv 1510.01799;
Li et al., arXiv 2110.05679, section 4). A convolution's gradients are formed by one convolution with a group per
record, any other layer's by differentiating the layer for every record alone.

Symbols: ``b`` records, ``u`` units, ``r`` rows, ``p`` and ``q`` values in and out of a layer.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import functional_call, grad, vmap
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from privacy.errors import ConfigError

USE_HINT = "Layers must be used once each, on records in the first dimension; or --privacy none."

_ONE = torch.ones((), dtype=torch.float64)
_CANCELLING = 2.0**-30  # above the rounding of a float64 sum of products, relative to the terms
_Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d
_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: conv1d_weight,
    nn.Conv2d: conv2d_weight,
    nn.Conv3d: conv3d_weight,
}
_MIXING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class Layer:
    """A module with trainable parameters of its own.

    Attributes:
      parameters: Those that are trained.
      plain: Whether these are all it has, and no others than weight and bias.
    """

    module: nn.Module
    parameters: Mapping[str, nn.Parameter]
    plain: bool

    @property
    def n_parameters(self) -> int:
        """How many trainable parameters it has."""
        return sum(parameter.numel() for parameter in self.parameters.values())


@dataclass(frozen=True)
class Call:
    """A layer's one call.

    Attributes:
      a: What came in.
      version: Goes up if that is overwritten.
      edge: Where its output stands in the graph. Not the output: a ReLU that works in place would overwrite it.
    """

    layer: Layer
    a: Tensor
    version: int
    edge: GradientEdge


@dataclass(frozen=True)
class Products:
    """A linear layer: row i adds ``g[i] a[i]^T`` to its unit's gradient for the weight, and ``g[i]`` for the bias.

    Attributes:
      a: What came in, shape ``(r, p)``; a record has more than one row where the layer runs over a sequence.
      g: What goes back, shape ``(r, q)``.
      a_norms: Norms of the rows of ``a``, with a 1 appended where there is a bias, float64.
      bias: 1.0 if there is one, else 0.0.
      sizes: Rows of each unit, or ``None``: one each.
    """

    a: Tensor
    g: Tensor
    a_norms: Tensor
    bias: float
    sizes: list[int] | None

    def norms(self) -> Tensor:
        """Returns the norms of the units' gradients, shape ``(u,)``, float64."""
        if self.sizes is None:
            return _norms(self.g) * self.a_norms
        # |sum_i g_i a_i^T|^2 = sum_ij (a_i a_j)(g_i g_j), over the rows of one unit; not less even where they cancel.
        of_units = (rows.double().split_with_sizes(self.sizes) for rows in (self.a, self.g))
        terms = [(a @ a.T + self.bias) * (g @ g.T) for a, g in zip(*of_units, strict=True)]
        return torch.stack([each.sum() + _CANCELLING * each.abs().sum() for each in terms]).sqrt()

    def scaled(self, factors: Tensor) -> "Products":
        """Returns the same with each unit times its factor, shape ``(u,)``, float64."""
        return Products(self.a, _times(self.g, self._by_row(factors)), self.a_norms, self.bias, self.sizes)

    def without(self, gone: Tensor) -> "Products":
        """Returns the same without the units that are gone, shape ``(u,)``."""
        rows = self._by_row(gone)
        return Products(_cleared(self.a, rows), _cleared(self.g, rows), self.a_norms, self.bias, self.sizes)

    def _by_row(self, of_units: Tensor) -> Tensor:
        return of_units if self.sizes is None else of_units.repeat_interleave(torch.tensor(self.sizes))

    def sum_into(self, places: Iterator[Tensor]) -> None:
        """Writes the sum over units into the next places, one per parameter."""
        torch.mm(self.g.T, self.a, out=next(places))
        if self.bias:
            torch.sum(self.g, 0, out=next(places))


@dataclass(frozen=True)
class Formed:
    """A layer whose gradient is formed for every unit: by parameter, shape ``(u, …)``, float32."""

    gradients: Mapping[str, Tensor]

    def norms(self) -> Tensor:
        """Returns the norms of the units' gradients, shape ``(u,)``, float64."""
        return _norms(torch.stack([_norms(each.flatten(1)) for each in self.gradients.values()], dim=1))

    def scaled(self, factors: Tensor) -> "Formed":
        """Returns the same with each unit times its factor, shape ``(u,)``, float64."""
        return Formed({name: _times(each, factors) for name, each in self.gradients.items()})

    def without(self, gone: Tensor) -> "Formed":
        """Returns the same without the units that are gone, shape ``(u,)``."""
        return Formed({name: _cleared(each, gone) for name, each in self.gradients.items()})

    def sum_into(self, places: Iterator[Tensor]) -> None:
        """Writes the sum over units into the next places, one per parameter."""
        for each in self.gradients.values():
            torch.sum(each, 0, out=next(places))


def trainable_layers(model: nn.Module) -> list[Layer]:
    """Returns the layers that have trainable parameters of their own, in the model's order.

    Raises: ConfigError: A layer mixes records, or shares parameters with another.
    """
    layers: list[Layer] = []
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        if isinstance(module, _MIXING):
            raise ConfigError(
                f"{name_of(module)} mixes records", hint="Use GroupNorm or LayerNorm instead of BatchNorm."
            )
        own = dict(module.named_parameters(recurse=False))
        trained = {name: each for name, each in own.items() if each.requires_grad}
        if not seen.isdisjoint(trained.values()):
            raise ConfigError(f"{name_of(module)} shares a parameter with another layer", hint=USE_HINT)
        seen.update(trained.values())
        if trained:
            layers.append(Layer(module, trained, len(trained) == len(own) and own.keys() <= {"weight", "bias"}))
    return layers


def part_of(call: Call, g: Tensor | None, sizes: Sequence[int] | None) -> Products | Formed:
    """Chooses the engine of a layer."""
    if g is None:
        raise ConfigError("a parameter of the model takes no part in its output")
    module, plain = call.layer.module, call.layer.plain
    if type(module) is nn.Linear and plain:
        return _products(call, g, sizes)
    if isinstance(module, _Convolution) and type(module) in _CONVOLUTIONS and plain and _pads_with_zeros(module):
        gradients = _of_convolution(module, call.a, g)
    else:
        gradients = _by_vmap(call, g)
    if sizes is not None:
        gradients = {name: _per_unit(each, sizes) for name, each in gradients.items()}
    return Formed(gradients)


def _products(call: Call, g: Tensor, sizes: Sequence[int] | None) -> Products:
    a, n_places = call.a.flatten(0, -2), math.prod(g.shape[1:-1])
    rows = None if sizes is None and n_places == 1 else [n_places * size for size in sizes or [1] * len(g)]
    norms, bias = _norms(a), "bias" in call.layer.parameters
    return Products(a, g.flatten(0, -2), norms.hypot(_ONE) if bias else norms, float(bias), rows)


def _pads_with_zeros(layer: _Convolution) -> bool:
    return layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _of_convolution(layer: _Convolution, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Forms a convolution's gradients as the gradient of one with ``b`` times as many groups, a group per record."""
    b, shape = len(g), layer.weight.shape
    weight = _CONVOLUTIONS[type(layer)](
        a.flatten(0, 1)[None],
        (b * shape[0], *shape[1:]),
        g.flatten(0, 1)[None],
        layer.stride,
        layer.padding,
        layer.dilation,
        b * layer.groups,
    )
    gradients = {"weight": weight.reshape(b, *shape)}
    return gradients if layer.bias is None else {**gradients, "bias": g.flatten(2).sum(2)}


def _by_vmap(call: Call, g: Tensor) -> dict[str, Tensor]:
    """Forms any layer's gradients by differentiating it for every record alone."""
    parameters = {name: each.detach() for name, each in call.layer.parameters.items()}

    def of_one(a: Tensor, back: Tensor) -> dict[str, Tensor]:
        def pulled(given: dict[str, Tensor]) -> Tensor:
            return torch.sum(functional_call(call.layer.module, given, (a[None],))[0] * back)

        found: dict[str, Tensor] = grad(pulled)(parameters)
        return found

    gradients: dict[str, Tensor] = vmap(of_one)(call.a, g)
    return gradients


def norms_over(parts: Sequence[Products | Formed]) -> Tensor:
    """Returns the norms of the units' gradients over all layers, shape ``(u,)``, float64."""
    return _norms(torch.stack([part.norms() for part in parts], dim=1))


def _per_unit(gradients: Tensor, sizes: Sequence[int]) -> Tensor:
    return torch.stack([part.sum(0) for part in gradients.split_with_sizes(list(sizes))])


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)
    return norms


def _times(rows: Tensor, factors: Tensor) -> Tensor:
    """Returns each row times its factor, multiplied in float64 and rounded once to float32."""
    return torch.mul(rows, _along(factors, rows), out=torch.empty_like(rows))


def _cleared(rows: Tensor, gone: Tensor) -> Tensor:
    return rows.masked_fill(_along(gone, rows), 0.0)


def _along(of_rows: Tensor, rows: Tensor) -> Tensor:
    return of_rows.reshape(-1, *[1] * (rows.dim() - 1))


def name_of(module: nn.Module) -> str:
    """Returns what messages call a layer."""
    return f"a layer of kind {type(module).__name__}"
