"""The loop of a process that holds a piece for others: micro-batches forward, gradients back, a step at their end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clients.chain.links import (
    BACKWARD,
    DONE,
    FORWARD,
    LABELS,
    LOSS,
    MOST_IN_FLIGHT,
    Inbox,
    Place,
    Received,
)
from clients.chain.stage import Stage
from clients.channel.session import ChannelClosedError, Session, told
from privacy.errors import FederationError, RemoteProtocolError


@dataclass(frozen=True)
class Bounds:
    """What a holder lets a chain ask of it; public.

    Attributes:
      steps: Most steps.
      deadline: Seconds without a message in the middle of a step after which the chain is over.
      idle: The same between steps.
    """

    steps: int = 1_000_000
    deadline: float = 30.0
    idle: float = 60.0


_BOUNDS = Bounds()


class StageLoop:
    """One held piece in one chain; a thread's work from the first micro-batch to the end."""

    def __init__(
        self,
        stage: Stage,
        *,
        labels: bool = False,
        bounds: Bounds = _BOUNDS,
        finished: Callable[[], None] = lambda: None,
    ) -> None:
        """Sets up.

        Args:
          stage: The piece; its parameters are what the chain leaves behind.
          labels: Whether it is the last piece and is trained with labels from home (`ChainPlan.labels_leave`).
          bounds: What it lets the chain ask of it.
          finished: Keeps what was trained; called once all steps are taken, and before home hears of it. Of what it
            raises, home is ``told``.
        """
        self.steps = 0
        self._stage, self._labels, self._bounds, self._finished = stage, labels, bounds, finished
        self._now: Place | None = None  # the step under way, by its last micro-batch that came
        self._forwarded, self._ended = 0, 0
        self._unpaired: dict[str, dict[int, Tensor]] = {FORWARD: {}, LABELS: {}}

    def run(self, upstream: Session, onward: Session) -> None:
        """Works until home says that the chain is over and ``upstream`` is closed; closes ``onward``.

        Args:
          upstream: To the stage before, or to home.
          onward: To the next stage; from the last one to home, which may be ``upstream`` itself.

        Raises:
          ChannelError: A neighbour is gone, or was silent for longer than the bounds allow.
          RemoteProtocolError: A neighbour sent what no stage sends; the piece may have taken part in a step by halves.
            Either way both neighbours are told, in a plain line, and both sessions are over.
        """
        torch.set_num_threads(1)  # a setting of the calling thread
        inbox = Inbox([upstream] if onward is upstream else [upstream, onward])
        try:
            last = self._until_done(inbox, upstream, onward)
            self._finished()
            onward.send(last.place.message(DONE), self._bounds.deadline)
            _await_close(upstream, self._bounds.deadline)
        except FederationError as error:
            for session in (upstream, onward):
                session.close(told(error)[:200])
            raise
        finally:
            inbox.stop()
            if onward is not upstream:
                onward.close()

    def _until_done(self, inbox: Inbox, upstream: Session, onward: Session) -> Received:
        behind = 0 if onward is upstream else 1  # among the inbox's sessions
        sources = {FORWARD: 0, DONE: 0, BACKWARD: behind, LABELS: behind}
        while True:
            message = inbox.next(self._bounds.idle if self._now is None else self._bounds.deadline)
            if sources.get(message.kind) != message.source:
                raise _refused(f"a {message.kind} came from the wrong side")
            if message.kind == DONE:
                if self._now is not None:
                    raise _refused("the chain was ended in the middle of a step")
                return message
            self._take(message, upstream, onward)

    def _take(self, message: Received, upstream: Session, onward: Session) -> None:
        self._check(message)
        place, wait = message.place, self._bounds.deadline
        if message.kind == BACKWARD:
            upstream.send(place.message(BACKWARD, self._stage.backward(place.index, message.value)), wait)
            self._end_of_one(place)
        elif self._labels:
            pair = self._paired(message)
            if pair is not None:
                loss, g = self._stage.finish(place, pair[FORWARD], pair[LABELS])
                onward.send(place.message(LOSS, torch.tensor(loss, dtype=torch.float64)), wait)
                upstream.send(place.message(BACKWARD, g), wait)
                self._end_of_one(place)
        else:
            onward.send(place.message(FORWARD, self._stage.forward(place.index, message.value)), wait)
            if not self._stage.trains:
                self._end_of_one(place)

    def _check(self, message: Received) -> None:
        """Checks the order of what came: steps one after another, each forward pass in the order of its numbers."""
        place, now = message.place, self._now
        if (message.kind == LABELS) != self._labels and message.kind != FORWARD:
            raise _refused(f"a {message.kind} came that this piece has no use for")
        if now is None:
            if message.kind == BACKWARD or place.step != self.steps or self.steps >= self._bounds.steps:
                raise _refused("a step began that is not the next one, or one more than agreed")
            self._now = place
        elif (place.step, place.count, place.records) != (now.step, now.count, now.records):
            raise _refused("a message of another step came in the middle of a step")
        if message.kind == FORWARD:
            if place.index != self._forwarded:
                raise _refused("a micro-batch came out of its order")
            self._forwarded += 1

    def _paired(self, message: Received) -> Mapping[str, Tensor] | None:
        """Returns a micro-batch with its labels once both are there."""
        waiting, index = self._unpaired[message.kind], message.place.index
        if index in waiting or len(waiting) >= MOST_IN_FLIGHT:
            raise _refused("more micro-batches are under way than a chain may have")
        waiting[index] = message.value
        if not all(index in each for each in self._unpaired.values()):
            return None
        return {kind: each.pop(index) for kind, each in self._unpaired.items()}

    def _end_of_one(self, place: Place) -> None:
        self._ended += 1
        if self._ended == place.count:
            self._stage.apply()
            self.steps += 1
            self._now, self._forwarded, self._ended = None, 0, 0


def _await_close(session: Session, timeout: float) -> None:
    """Waits until home has heard that all is done, so that no session closes before."""
    try:
        session.receive(timeout)
    except ChannelClosedError:
        return
    raise _refused("something came after the chain's end")


def _refused(reason: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason, phase="chain")
