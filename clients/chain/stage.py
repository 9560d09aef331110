"""One piece of a model at work.

A step is `count` micro-batches: gradients add up in their order, then the optimiser takes one step. So a step's result
is that of accumulating over the same chunks in one process, bit for bit, and with one micro-batch that of the whole
batch, as long as no layer draws random numbers or mixes records (dropout, BatchNorm), on the same number of threads.
Activations are kept for as many micro-batches as are in flight and no more.

Symbols: ``b`` records of a micro-batch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clients.chain.links import MOST_IN_FLIGHT, Place
from privacy.errors import RemoteProtocolError
from strategies.chain_plan import Optimizer
from strategies.losses import mean_loss

State = dict[str, npt.NDArray[np.generic]]
"""A piece's parameters and buffers by their names in the whole model, sorted. Secret."""

_MOMENTUM = 0.9


@dataclass(frozen=True)
class Learning:
    """How a piece is trained; public, and the same for every stage of a chain."""

    optimizer: Optimizer
    rate: float


class Stage:
    """A piece at work; it belongs to one thread. Without ``learning`` it answers and never changes."""

    def __init__(self, module: nn.Module, learning: Learning | None = None) -> None:
        """Takes over a piece.

        Args:
          module: Takes one tensor, gives one; records are the first dimension of both. Its parameters are trained in
            place.
          learning: ``None``: inference only; the piece is put into evaluation mode.
        """
        torch.set_num_threads(1)  # as in all training here: the same sums everywhere
        self.module = module.train(learning is not None)
        self._trains = learning is not None
        self._optimizer = None if learning is None else _optimizer(module.parameters(), learning)
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def trains(self) -> bool:
        """Whether it was built to be trained."""
        return self._trains

    def value(self, x: Tensor) -> Tensor:
        """Computes a micro-batch and keeps nothing of it. See `forward`."""
        with torch.no_grad():
            return self._computed(x)

    def forward(self, index: int, x: Tensor, *, inputs: bool = False) -> Tensor:
        """Computes a micro-batch; in training, keeps what its backward pass needs.

        Args:
          index: Of the micro-batch.
          x: Shape ``(b, …)``. Secret.
          inputs: Whether ``x`` are the model's own inputs, whose gradient nobody wants.

        Returns: Shape ``(b, …)``, cut off from the graph. Secret.
        Raises: RemoteProtocolError: More in flight than a chain may have, or a shape that is not the piece's.
        """
        if not self.trains:
            return self.value(x)
        if index in self._kept or len(self._kept) >= MOST_IN_FLIGHT:
            raise RemoteProtocolError("more micro-batches are under way than a chain may have", phase="chain")
        x = x.detach() if inputs else _leaf(x)
        y = self._computed(x)
        self._kept[index] = x, y
        return y.detach()

    def backward(self, index: int, g: Tensor) -> Tensor:
        """Adds a micro-batch's gradients to the parameters'.

        Args:
          index: Of a micro-batch that went forward.
          g: Gradient of what `forward` returned, of its shape. Secret.

        Returns: The gradient of what came in, of its shape; empty where it has none. Secret.
        Raises: RemoteProtocolError: Nothing of that number, or of that shape, went forward.
        """
        x, y = self._kept.pop(index, (None, None))
        if x is None or y is None or g.shape != y.shape or g.dtype != y.dtype:
            raise RemoteProtocolError("a gradient came back for nothing that went forward", phase="chain")
        if y.requires_grad:
            torch.autograd.backward(y, g)
        return _gradient(x)

    def finish(self, place: Place, x: Tensor, labels: Tensor) -> tuple[float, Tensor]:
        """Ends the forward pass with the loss and begins the backward pass: what the last piece does.

        Args:
          place: Says which part of the step's records this is.
          x: Shape ``(b, …)``. Secret.
          labels: As `strategies.losses` takes them, shape ``(b,)``. Secret.

        Returns: This micro-batch's share of the step's mean loss, and the gradient of ``x``.
        Raises: RemoteProtocolError: A shape that is not the piece's.
        """
        x = _leaf(x)
        loss = share_of_loss(place, self._computed(x), labels)
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), _gradient(x)

    def gradient(self, place: Place, x: Tensor, labels: Tensor) -> Tensor:
        """Returns the gradient of ``x`` as `finish` does, and leaves the parameters' gradients alone."""
        x = _leaf(x)
        loss = share_of_loss(place, self._computed(x), labels)
        return torch.autograd.grad(loss, x)[0]

    def apply(self) -> None:
        """Takes a step of the optimiser with what was added up, and begins anew."""
        if self._kept:
            raise RemoteProtocolError("a step ends before all its gradients came back", phase="chain")
        if self._optimizer is not None:
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def state(self) -> State:
        """Returns a copy of the parameters and buffers."""
        return {key: each.detach().numpy().copy() for key, each in sorted(self.module.state_dict().items())}

    def load(self, state: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Sets parameters and buffers in place. Raises: ValueError: Other keys or shapes: the caller's bug."""
        own = self.module.state_dict()
        if own.keys() != state.keys() or any(own[key].shape != state[key].shape for key in own):
            raise ValueError("the state is another piece's")
        self.module.load_state_dict({key: torch.from_numpy(np.array(each)) for key, each in state.items()})

    def _computed(self, x: Tensor) -> Tensor:
        try:
            y = self.module(x)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            raise RemoteProtocolError(
                "a tensor came whose shape or type this piece does not take", phase="chain"
            ) from error
        if not isinstance(y, Tensor) or y.shape[:1] != x.shape[:1]:
            raise RemoteProtocolError("this piece does not keep records apart in the first dimension", phase="chain")
        return y


def share_of_loss(place: Place, outputs: Tensor, labels: Tensor) -> Tensor:
    """Returns a micro-batch's share of its step's mean loss, shape ``()``: the mean itself where it is all of it.

    Raises: RemoteProtocolError: Labels that do not fit the outputs.
    """
    try:
        return mean_loss(outputs, labels) * (len(labels) / place.records)
    except (RuntimeError, ValueError, IndexError) as error:
        raise RemoteProtocolError("labels came that do not fit the output", phase="chain") from error


def _leaf(x: Tensor) -> Tensor:
    return x.detach().requires_grad_(x.is_floating_point())


def _gradient(x: Tensor) -> Tensor:
    if not x.requires_grad:
        return torch.empty(0)
    return torch.zeros_like(x) if x.grad is None else x.grad


def _optimizer(parameters: Iterable[nn.Parameter], learning: Learning) -> torch.optim.Optimizer | None:
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return None
    if learning.optimizer == "adam":
        return torch.optim.Adam(trained, lr=learning.rate)
    return torch.optim.SGD(trained, lr=learning.rate, momentum=_MOMENTUM if learning.optimizer == "momentum" else 0.0)
