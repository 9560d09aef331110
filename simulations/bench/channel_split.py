"""A small MLP split between two processes, for ``simulations/bench/channel.py``: what crosses is all that differs.

The front sends 100 records' activations (102,400 bytes) and their labels; the back answers with the gradient of the
activations. Both take a step of SGD for every batch. Nothing of it is secret: records are drawn at random.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed, nn

from clients.channel.message import Message
from clients.channel.session import Session

BATCH, INPUTS, WIDTH, CLASSES = 100, 784, 256, 10
ACTIVATIONS = BATCH * WIDTH * 4
"""Bytes that cross, either way, in a step."""

Exchange = Callable[[npt.NDArray[np.float32], npt.NDArray[np.int64]], npt.NDArray[np.float32]]
"""From activations, shape ``(BATCH, WIDTH)``, and labels to the mean loss's gradient by the activations."""


@dataclass
class Front:
    """The first layer, with the records."""

    _rows: Any = field(init=False)
    _labels: Any = field(init=False)
    _layer: Any = field(init=False)
    _optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(1)
        self._rows, self._labels = torch.randn(BATCH, INPUTS), torch.randint(CLASSES, (BATCH,))
        self._layer = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.ReLU())
        self._optimizer = torch.optim.SGD(self._layer.parameters(), lr=0.1)

    def step(self, exchange: Exchange) -> None:
        """Takes one step with whoever answers."""
        self._optimizer.zero_grad()
        activations = self._layer(self._rows)
        gradient = exchange(activations.detach().numpy(), self._labels.numpy())
        activations.backward(torch.tensor(gradient))
        self._optimizer.step()

    def parameters(self) -> list[npt.NDArray[np.float32]]:
        """Returns copies."""
        return [parameter.detach().numpy().copy() for parameter in self._layer.parameters()]


@dataclass
class Back:
    """All other layers."""

    _layers: Any = field(init=False)
    _optimizer: Any = field(init=False)

    def __post_init__(self) -> None:
        torch.manual_seed(2)
        self._layers = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, CLASSES))
        self._optimizer = torch.optim.SGD(self._layers.parameters(), lr=0.1)

    def answer(self, activations: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Takes one step and returns the gradient of the activations."""
        self._optimizer.zero_grad()
        inputs = torch.tensor(activations, requires_grad=True)  # a copy: what the channel hands out is read-only
        loss = nn.functional.cross_entropy(self._layers(inputs), torch.tensor(labels))
        loss.backward()  # type: ignore[no-untyped-call] # torch
        self._optimizer.step()
        gradient: npt.NDArray[np.float32] = np.asarray(inputs.grad)
        return gradient


def over_session(session: Session) -> Exchange:
    """Returns the exchange over a session of the channel."""

    def exchange(activations: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        session.send(Message("forward", tensors={"x": activations, "y": labels}))
        gradient: npt.NDArray[np.float32] = session.receive().tensors["g"]
        return gradient

    return exchange


def answer_session(session: Session) -> None:
    """Answers the front's exchanges until the session ends."""
    back = Back()
    while True:
        came = session.receive()
        session.send(Message("backward", tensors={"g": back.answer(came.tensors["x"], came.tensors["y"])}))


class Gloo:
    """The same over torch.distributed's gloo, in the clear: send, send, receive; shapes are known on both sides."""

    def __init__(self, port: int, rank: int) -> None:
        """Waits for the other end. ``rank``: 0 asks, 1 answers."""
        self._there = 1 - rank
        where, patience = f"tcp://127.0.0.1:{port}", timedelta(seconds=60)
        distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2, timeout=patience)
        self._hop = torch.empty(BATCH, WIDTH)
        self._labels = torch.empty(BATCH, dtype=torch.int64)

    def exchange(self, activations: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Is the front's."""
        distributed.send(torch.from_numpy(activations), self._there)
        distributed.send(torch.from_numpy(labels), self._there)
        distributed.recv(self._hop, self._there)
        gradient: npt.NDArray[np.float32] = self._hop.numpy()
        return gradient

    def answer(self) -> None:
        """Answers the front's exchanges until its process ends the group."""
        back = Back()
        while True:
            distributed.recv(self._hop, self._there)
            distributed.recv(self._labels, self._there)
            gradient = back.answer(self._hop.numpy(), self._labels.numpy())
            distributed.send(torch.from_numpy(gradient), self._there)
