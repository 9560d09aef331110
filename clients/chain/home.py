"""Home's part in a step: what it sends, and what it does with each message that comes back."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from clients.chain.links import BACKWARD, FORWARD, LABELS, LOSS, Place, Received
from clients.chain.per_record import Driven, driven
from clients.chain.released import Releaser
from clients.chain.stage import Stage
from clients.channel.session import Session
from privacy.errors import RemoteProtocolError
from strategies.chain_plan import ChainPlan, leaving
from strategies.release import Crossing, Release


@dataclass(frozen=True)
class Links:
    """Home's two sessions: to the first held piece and to the last; the same object where one holder has both."""

    first: Session
    last: Session

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Each once."""
        return (self.first,) if self.first is self.last else (self.first, self.last)


@dataclass(frozen=True)
class Own:
    """The pieces at home, as the plan has them."""

    front: Stage | None = None
    tail: Stage | None = None

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Those that there are."""
        return tuple(stage for stage in (self.front, self.tail) if stage is not None)


class Outward:
    """The one place where anything leaves home."""

    def __init__(self, plan: ChainPlan, links: Links, releaser: Releaser | None, deadline: float) -> None:
        """Finds out what leaves. Raises: PrivacyError: A crossing without a release (`check_crossings`)."""
        self._leaving = leaving(plan)
        self._first = Crossing.INPUTS if plan.front is None else Crossing.ACTIVATIONS
        self._links, self._releaser, self._deadline = links, releaser, deadline

    def ahead(self, place: Place, value: Tensor) -> None:
        """Sends inputs or activations to the first held piece."""
        self._links.first.send(place.message(FORWARD, self._released(self._first, value)), self._deadline)

    def labels(self, place: Place, labels: Tensor) -> None:
        """Sends labels to the last held piece."""
        self._links.last.send(place.message(LABELS, self._released(Crossing.LABELS, labels)), self._deadline)

    def back(self, place: Place, g: Tensor) -> None:
        """Sends the gradient of what came home to the last held piece.

        ``g`` is that of the step's mean loss. Clip and noise of a release are for the gradient of the record's own
        loss, whatever the size of the batch.
        """
        if isinstance(self._leaving[Crossing.GRADIENTS], Release):
            g = self._released(Crossing.GRADIENTS, g * place.records) / place.records
        else:
            g = self._released(Crossing.GRADIENTS, g)
        self._links.last.send(place.message(BACKWARD, g), self._deadline)

    def _released(self, what: Crossing, value: Tensor) -> Tensor:
        return value if self._releaser is None else self._releaser.values(what, value)


class Work(Protocol):
    """What home does in one step.

    Attributes:
      kinds: Messages that come back for every micro-batch, one of each.
    """

    kinds: frozenset[str]

    def begin(self, place: Place, inputs: Tensor) -> None:
        """Sends a micro-batch on its way."""

    def take(self, message: Received) -> None:
        """Uses what came back; the caller checked its kind and place."""


class Training:
    """Gradients of the step's mean loss, added to those of home's own parameters.

    Attributes:
      loss: The shares that came so far.
    """

    def __init__(self, own: Own, outward: Outward, labels: tuple[Tensor, ...]) -> None:
        """Labels are by micro-batch."""
        self.kinds = frozenset({BACKWARD, LOSS if own.tail is None else FORWARD})
        self.loss = 0.0
        self._own, self._outward, self._labels = own, outward, labels

    def begin(self, place: Place, inputs: Tensor) -> None:
        """Sends the front's output, and the labels where they leave."""
        value = inputs if self._own.front is None else self._own.front.forward(place.index, inputs, inputs=True)
        self._outward.ahead(place, value)
        if self._own.tail is None:
            self._outward.labels(place, self._labels[place.index])

    def take(self, message: Received) -> None:
        """Ends the forward pass at the tail, or the backward pass at the front."""
        place, value = message.place, message.value
        if message.kind == LOSS:
            self.loss += float(checked_loss(value))
        elif message.kind == FORWARD and self._own.tail is not None:
            loss, g = self._own.tail.finish(place, value, self._labels[place.index])
            self.loss += loss
            self._outward.back(place, g)
        elif self._own.front is not None:
            self._own.front.backward(place.index, value)


class PerRecord:
    """What home's own gradients are made of, record by record; its parameters' gradients are left alone."""

    def __init__(self, own: Own, outward: Outward, labels: tuple[Tensor, ...]) -> None:
        """Labels are by micro-batch."""
        self.kinds = frozenset({BACKWARD, LOSS if own.tail is None else FORWARD})
        self._own, self._outward, self._labels = own, outward, labels
        self._came: dict[int, Tensor] = {}
        self._returned: dict[int, Tensor] = {}

    def begin(self, place: Place, inputs: Tensor) -> None:
        """As `Training.begin`, and keeps nothing."""
        self._outward.ahead(place, inputs if self._own.front is None else self._own.front.value(inputs))
        if self._own.tail is None:
            self._outward.labels(place, self._labels[place.index])

    def take(self, message: Received) -> None:
        """Collects what came home, and sends its gradient back."""
        place, value = message.place, message.value
        if message.kind == FORWARD and self._own.tail is not None:
            self._came[place.index] = value
            self._outward.back(place, self._own.tail.gradient(place, value, self._labels[place.index]))
        elif message.kind == BACKWARD and self._own.front is not None:
            self._returned[place.index] = value

    def driven(self, inputs: Tensor) -> Driven:
        """Returns it all, in the order of the records."""
        return driven(
            None if self._own.front is None else (self._own.front.module, inputs, _joined(self._returned)),
            None if self._own.tail is None else (self._own.tail.module, _joined(self._came), torch.cat(self._labels)),
        )


class Answering:
    """Outputs of a forward pass.

    Attributes:
      outputs: By micro-batch.
    """

    def __init__(self, own: Own, outward: Outward) -> None:
        """Nothing came yet."""
        self.kinds = frozenset({FORWARD})
        self.outputs: dict[int, Tensor] = {}
        self._own, self._outward = own, outward
        self._sizes: dict[int, int] = {}

    def begin(self, place: Place, inputs: Tensor) -> None:
        """Sends the front's output."""
        self._sizes[place.index] = len(inputs)
        self._outward.ahead(place, inputs if self._own.front is None else self._own.front.value(inputs))

    def take(self, message: Received) -> None:
        """Computes the output of what came home."""
        index, value = message.place.index, message.value
        value = value if self._own.tail is None else self._own.tail.value(value)
        if value.shape[:1] != (self._sizes[index],):
            raise RemoteProtocolError("answers came for other records than were asked for", phase="chain")
        self.outputs[index] = value


def checked_loss(value: Tensor) -> Tensor:
    """Returns a loss that a holder sent. Raises: RemoteProtocolError: It is not one number."""
    if value.shape != () or not value.is_floating_point():
        raise RemoteProtocolError("what came as a loss is not one number", phase="chain")
    return value


def _joined(by_index: dict[int, Tensor]) -> Tensor:
    return torch.cat([by_index[index] for index in sorted(by_index)])
