"""Gradients of home's own pieces record by record, through a chain: what is clipped, summed and noised.

The front's gradient for a record is that of the scalar product of its output with the gradient that came back; the
tail's is that of the record's loss. Both together are one model with one loss per record, so that one clip covers all
that home trains, and everything that clips and noises whole models does so here too (`clients.clipping`,
`clients.training.integer_sum`).

Symbols: ``b`` records.
"""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from clients.clipping import Batch, Losses
from privacy.errors import ConfigError, RemoteProtocolError
from strategies.losses import record_losses


@dataclass(frozen=True)
class Driven:
    """Home's own pieces as a model, with what drives their gradients.

    Attributes:
      model: Its parameters are the pieces' very own, the front's first.
      losses: One per record: its gradient is the record's gradient, at the weights of this step only.
      batch: Inputs and labels in the form that ``model`` and ``losses`` take. Secret.
    """

    model: nn.Module
    losses: Losses
    batch: Batch = field(repr=False)


def driven(front: tuple[nn.Module, Tensor, Tensor] | None, tail: tuple[nn.Module, Tensor, Tensor] | None) -> Driven:
    """Joins home's pieces.

    Args:
      front: The piece, its inputs ``(b, …)``, and the gradient of the *mean* loss with respect to its outputs.
      tail: The piece, its inputs ``(b, …)``, and the labels ``(b,)``.

    Raises:
      ConfigError: Nothing to train at home, or values that are not float32.
      RemoteProtocolError: What came back is not of the front's shape.
    """
    pieces = _OwnPieces(front, tail)
    columns = [part for each in (front, tail) if each is not None for part in (each[1].flatten(1),)]
    wanted = []
    if front is not None:
        wanted.append(front[2].flatten(1) * len(front[2]))
    if tail is not None:
        wanted.append(tail[2].reshape(-1, 1))
    if not columns or any(each.dtype != torch.float32 for each in (*columns, *wanted)):
        raise ConfigError("gradients record by record take a piece at home, and inputs of float32")
    return Driven(pieces, pieces.losses, (torch.cat(columns, dim=1), torch.cat(wanted, dim=1), None))


class _OwnPieces(nn.Module):
    """Front and tail side by side, on flat rows."""

    def __init__(
        self, front: tuple[nn.Module, Tensor, Tensor] | None, tail: tuple[nn.Module, Tensor, Tensor] | None
    ) -> None:
        super().__init__()
        self.front, self.tail = (None if each is None else each[0] for each in (front, tail))
        self._shapes = [None if each is None else each[1].shape[1:] for each in (front, tail)]
        self._shape_of_logits: torch.Size = torch.Size()

    def forward(self, rows: Tensor) -> Tensor:
        """Returns the front's outputs and the tail's logits of each record, flat, shape ``(b, …)``."""
        outputs, start = [], 0
        for piece, shape in zip((self.front, self.tail), self._shapes, strict=True):
            if piece is None or shape is None:
                continue
            part = rows[:, start : start + math.prod(shape)].reshape(-1, *shape).contiguous()
            start += math.prod(shape)
            out = piece(part)
            outputs.append(out.flatten(1))
            if piece is self.tail:
                self._shape_of_logits = out.shape[1:]
        return torch.cat(outputs, dim=1)

    def losses(self, outputs: Tensor, wanted: Tensor) -> Tensor:
        """Returns each record's driving loss, shape ``(b,)``; called right after `forward`."""
        n_tail = 0 if self.tail is None else math.prod(self._shape_of_logits)
        n_front = outputs.shape[1] - n_tail
        if wanted.shape[1] != n_front + (self.tail is not None):
            raise RemoteProtocolError("the gradients that came back are not of the front's shape", phase="chain")
        total = (outputs[:, :n_front] * wanted[:, :n_front]).sum(1)
        if self.tail is not None:
            total = total + record_losses(outputs[:, n_front:].reshape(-1, *self._shape_of_logits), wanted[:, -1])
        return total
