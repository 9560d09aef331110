"""Sums of clipped gradients for models too large for the integer path, in floating point.

What is promised. A unit (one record, or all records of one patient) contributes the sum of its records' gradients,
shortened *once*, over all layers together, to ``C (1 - 2^-20)``. The float64 norm of what it contributes is then
checked to be at most C, and a unit that fails this, or whose gradient is not finite, contributes zero. What is not: the
sum itself is rounded to float32, by an amount that depends on all records. So the sensitivity C is *asserted* here; on
the integer path (`privacy.dp.mechanism`) it is exact.

Symbols: ``b`` records, ``u`` units, ``d`` trainable parameters.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from clients.float_noise import add_gaussian
from clients.layer_gradients import USE_HINT, Call, name_of, norms_over, part_of, trainable_layers
from privacy.dp.noise import Entropy
from privacy.errors import ConfigError

Losses = Callable[[Tensor, Tensor], Tensor]
"""Outputs and labels of ``b`` records to their losses, shape ``(b,)``, each a function of its own record."""

Batch: TypeAlias = tuple[Tensor, Tensor, Sequence[int] | None]
"""Inputs ``(b, …)``, labels ``(b, …)``, and the number of records of each unit, in order; ``None``: each is a unit."""

INTEGER_PARAMETERS = 4096
"""Up to this many parameters a model takes the integer path: at most 25 ms a step of 256 records. Public."""

_MARGIN = 1.0 - 2.0**-20  # float32 rounds an entry by 2^-24 of it: the check of the norm then never fails by rounding
_FORMED_VALUES = 2**24  # gradient entries formed at once, 64 MiB
_MOST_ROWS = 512


class Clipping:
    """Clipped sums of one model's gradients; what can be known of its layers is found out once.

    The model's layers keep records apart, with records in the first dimension throughout. Its parameters may change
    between calls, its layers and which parameters are trained may not.
    """

    def __init__(self, model: nn.Module, losses: Losses) -> None:
        """Looks at the layers.

        Args:
          model: Left as it is by every call.
          losses: One loss per record.

        Raises: ConfigError: A layer mixes records, or shares parameters with another.
        """
        self._model, self._losses, self._layers = model, losses, trainable_layers(model)
        self._shapes = [parameter.shape for layer in self._layers for parameter in layer.parameters.values()]
        formed = [layer.n_parameters for layer in self._layers if type(layer.module) is not nn.Linear]
        self._lengths = [shape.numel() for shape in self._shapes]
        self._rows = rows_at_once(sum(formed))

    def sum(
        self,
        inputs: Tensor,
        labels: Tensor,
        *,
        clip: float,
        sizes: Sequence[int] | None = None,
        share: float = 1.0,
    ) -> Tensor:
        """Sums the clipped gradients of units.

        Args:
          inputs: Shape ``(b, …)``, the records of a unit next to each other. Secret.
          labels: Shape ``(b, …)``. Secret.
          clip: C > 0, largest 2-norm of a unit's gradient. Public.
          sizes: Records of each unit, in order, ``b`` in all; ``None``: every record is a unit. Secret.
          share: Factor on the sum, > 0. Public.

        Returns: Shape ``(d,)``, float32, the trainable parameters in the model's order. Secret.
        Raises: ConfigError: A layer whose part in the output is not one call, record by record.
        """
        calls, each = self._forward(inputs, labels)
        # The factor goes onto the losses and the clip: small, where the sum is large.
        shares = torch.full_like(each, share)
        back = torch.autograd.grad(each, [call.edge for call in calls], shares, allow_unused=True)
        clip *= share
        with torch.no_grad():
            parts = [part_of(call, g, sizes) for call, g in zip(calls, back, strict=True)]
            factors = (clip * _MARGIN / norms_over(parts)).clamp(max=1.0)  # not a number where the norm is none
            parts = [part.scaled(factors) for part in parts]
            within = norms_over(parts) <= clip  # false where it is no number
            if not within.all():
                parts = [part.without(~within) for part in parts]
            total = torch.empty(sum(self._lengths))
            pieces = total.split_with_sizes(self._lengths)
            places = (piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True))
            for part in parts:
                part.sum_into(places)
        return total

    def noisy_mean(
        self, batch: Batch, *, clip: float, noise_multiplier: float, denominator: float, entropy: Entropy
    ) -> Tensor:
        """Returns a batch's `sum`, taken in pieces where it is large, plus noise once, over a denominator.

        Args:
          batch: May hold no record. Secret.
          clip: C > 0, largest 2-norm of a unit's gradient before the division. Public.
          noise_multiplier: Standard deviation of the noise in units of C. Public.
          denominator: Expected, never actual, number of units. Public.
          entropy: Source of the noise key, in production ``secrets.token_bytes``.

        Returns: Shape ``(d,)``, float32. Public once its event is debited.
        Raises: ConfigError: As for `sum`.
        """
        inputs, labels, sizes = batch
        total: Tensor | None = None
        for rows, held in chunks(len(labels), sizes, self._rows):
            part = self.sum(inputs[rows], labels[rows], clip=clip, sizes=held, share=1.0 / denominator)
            total = part if total is None else total.add_(part)
        if total is None:
            total = torch.zeros(sum(self._lengths))
        add_gaussian(total, noise_multiplier * clip / denominator, entropy)
        return total

    def _forward(self, inputs: Tensor, labels: Tensor) -> tuple[list[Call], Tensor]:
        """Runs the model; returns each layer's call, in the order of the layers, and the losses, shape ``(b,)``."""
        calls: dict[nn.Module, Call] = {}

        def note(module: nn.Module, arguments: tuple[object, ...], output: object) -> None:
            a = arguments[0] if len(arguments) == 1 else None
            if not (isinstance(a, Tensor) and isinstance(output, Tensor) and a.shape[:1] == output.shape[:1] == b):
                raise ConfigError(f"{name_of(module)} does not take records one by one", hint=USE_HINT)
            if module in calls:
                raise ConfigError(f"{name_of(module)} takes part twice", hint=USE_HINT)
            version = a._version  # noqa: SLF001 - torch has no public name for it
            calls[module] = Call(by_module[module], a.detach(), version, get_gradient_edge(output))

        b = inputs.shape[:1]
        by_module = {layer.module: layer for layer in self._layers}
        hooks = [module.register_forward_hook(note) for module in by_module]
        try:
            each = self._losses(self._model(inputs), labels)
        finally:
            for hook in hooks:
                hook.remove()
        if len(calls) < len(by_module):
            raise ConfigError("a parameter of the model takes no part in its output")
        for module, call in calls.items():
            if call.a._version != call.version:  # noqa: SLF001 - same
                raise ConfigError(f"what goes into {name_of(module)} is overwritten", hint=USE_HINT)
        return [calls[module] for module in by_module], each


def on_integer_path(model: nn.Module) -> bool:
    """Says whether records are clipped and summed in integers: by the model's number of parameters alone, so public."""
    return sum(parameter.numel() for parameter in model.parameters()) <= INTEGER_PARAMETERS


def rows_at_once(n_formed: int) -> int:
    """Returns how many records may be taken at once if each has that many gradient entries formed. Public."""
    return max(1, min(_MOST_ROWS, _FORMED_VALUES // max(1, n_formed)))


def chunks(n_records: int, sizes: Sequence[int] | None, most: int) -> Iterator[tuple[slice, list[int] | None]]:
    """Cuts a batch into pieces of at most ``most`` records, but never through a unit.

    Args:
      n_records: Number of records in the batch. Secret.
      sizes: Records of each unit, in order; ``None``: every record is a unit. Secret.
      most: A unit with more records than this is a piece of its own.

    Returns: Records of each piece, and its units' sizes.
    """
    if sizes is None:
        yield from ((slice(start, start + most), None) for start in range(0, n_records, most))
        return
    start, end, held = 0, 0, list[int]()
    for size in sizes:
        if held and end + size - start > most:
            yield slice(start, end), held
            start, held = end, []
        end += size
        held = [*held, size]
    if held:
        yield slice(start, end), held
