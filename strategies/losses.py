"""What training minimises: cross-entropy in nats, of two classes or more, over one head or the sum over several exits.

Symbols: ``b`` records, ``e`` exits, ``k`` logits: one logit says how likely the second of two classes is, more are one
for each class.
"""

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy


def record_losses(outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the loss of each record, a function of that record alone.

    Args:
      outputs: Logits, shape ``(b, k)``, or ``(b, e, k)``: then the losses of the exits are added up.
      labels: Whole numbers from 0, shape ``(b,)``, float32. Secret.

    Returns: Shape ``(b,)``. Secret.
    See: DepthFL (Kim et al., ICLR 2023), section 3: the sum over the exits, without the distillation between them.
    """
    return _losses(outputs, labels, "none")


def mean_loss(outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean of `record_losses`, shape ``()``.

    Its gradient differs in the last bits from that of their mean taken afterwards: torch divides by ``b``, which is not
    what multiplying by ``1 / b`` gives. Training without privacy uses this one, and is compared bit for bit.
    """
    return _losses(outputs, labels, "mean")


def final(outputs: Tensor) -> Tensor:
    """Returns the last exit's logits, shape ``(b, k)``, from ``(b, e, k)``; logits of one head as they are."""
    return outputs[:, -1] if outputs.dim() == 3 else outputs


def _losses(outputs: Tensor, labels: Tensor, reduction: str) -> Tensor:
    if outputs.dim() == 3:
        exits = [_losses(each, labels, reduction) for each in outputs.unbind(1)]
        return sum(exits[1:], start=exits[0])
    if outputs.shape[1] == 1:
        return binary_cross_entropy_with_logits(outputs.squeeze(1), labels, reduction=reduction)
    return cross_entropy(outputs, labels.long(), reduction=reduction)
