"""What neighbouring stages say to each other over a session.

Home opens a session to the first stage of others and one to the last (the same one where there is only one); every held
stage opens one to the next. A micro-batch goes forward, its gradient comes back:

=========== ============================== ==================================================
kind        goes from, to                  tensor
=========== ============================== ==================================================
`FORWARD`   each stage to the next         ``x``: what crosses the cut; from the last: the output
`LABELS`    home to the last stage         ``x``: labels, where they leave
`BACKWARD`  each stage to the one before   ``x``: the gradient of what came forward
`LOSS`      the last stage to home         ``x``: the micro-batch's share of the step's loss
`DONE`      as forward                     none: the chain is over and all is well
=========== ============================== ==================================================

Everything that comes from a peer is checked before it is used: kind, numbers, type, number of records, finiteness.
Memory is bounded by the micro-batches in flight.
"""

import queue
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clients.channel.message import Message
from clients.channel.session import ChannelTimeoutError, Session
from privacy.errors import FederationError, RemoteProtocolError

FORWARD, BACKWARD, LABELS, LOSS, DONE = "forward", "backward", "labels", "loss", "done"

MOST_IN_FLIGHT = 8
"""Most micro-batches under way in a chain, whatever its plan says.

So many messages fit the channel's window each way, so that two neighbours never both wait for room. Where home has one
session for both ends of the chain, each micro-batch is two messages each way, and half as many may be under way.
"""
MOST_MICRO_BATCHES = 2**16
MOST_RECORDS = 2**24

_TENSOR = "x"
_TYPES = (np.float32, np.float64, np.int64, np.bool_)
_BODY = struct.Struct("<III")
_POLL = 0.5  # seconds after which a reader sees that nobody wants to read any more


@dataclass(frozen=True)
class Place:
    """Which micro-batch of which step; public.

    Attributes:
      step: From 0.
      index: Of the micro-batch in the step, from 0.
      count: Micro-batches in the step.
      records: In the whole step.
    """

    step: int
    index: int
    count: int
    records: int

    def message(self, kind: str, value: Tensor | None = None) -> Message:
        """Returns a message about this micro-batch."""
        tensors = {} if value is None else {_TENSOR: value.detach().numpy()}
        return Message(kind, self.step, _BODY.pack(self.index, self.count, self.records), tensors)


@dataclass(frozen=True)
class Received:
    """A message that was checked, but for the shape, which the piece knows.

    Attributes:
      source: Which of the sessions it came over.
      value: Shape ``(b, …)`` of a micro-batch; of a loss ``()``; empty for `DONE`. Secret.
    """

    source: int
    kind: str
    place: Place
    value: Tensor


def received(source: int, peer: str, message: Message) -> Received:
    """Checks a message of a neighbour. Raises: RemoteProtocolError: It is none that a stage sends."""
    if message.kind not in {FORWARD, BACKWARD, LABELS, LOSS, DONE} or len(message.body) != _BODY.size:
        raise _wrong(peer, "sent no message of a chain")
    index, count, records = _BODY.unpack(message.body)
    if not (index < count <= MOST_MICRO_BATCHES and count <= records <= MOST_RECORDS):
        raise _wrong(peer, "numbers its micro-batches wrongly")
    place = Place(message.step, index, count, records)
    if message.kind == DONE:
        return Received(source, DONE, place, torch.empty(0))
    array = message.tensors.get(_TENSOR)
    if array is None or len(message.tensors) != 1 or array.dtype not in _TYPES:
        raise _wrong(peer, "sent other tensors than a stage does")
    if array.ndim and len(array) > records:
        raise _wrong(peer, "sent more records than the step has")
    value = torch.from_numpy(np.array(array))  # what was received cannot be written to
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise _wrong(peer, f"sent a {message.kind} that is not finite")
    return Received(source, message.kind, place, value)


def _wrong(peer: str, what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"{peer} {what}", site_id=peer, phase="chain")


class Inbox:
    """Takes messages from one session or two as they come; a thread each where there are two.

    What is waiting here is bounded; beyond that the sessions' own flow control holds the peers back.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """Starts reading; `stop` must follow.

        Args:
          sessions: One or two, not the same.
        """
        self._sessions = tuple(sessions)
        self._waiting: queue.Queue[Received | FederationError] = queue.Queue(2 * MOST_IN_FLIGHT)
        self._over = threading.Event()
        if len(self._sessions) > 1:
            for source in range(len(self._sessions)):
                threading.Thread(target=self._read, args=(source,), name=f"chain-{source}", daemon=True).start()

    def next(self, timeout: float) -> Received:
        """Returns the next message.

        Raises:
          ChannelError: A session failed, or nothing came for ``timeout`` seconds.
          RemoteProtocolError: What came is no message of a chain.
        """
        if len(self._sessions) == 1:
            session = self._sessions[0]
            return received(0, session.peer, session.receive(timeout))
        try:
            found = self._waiting.get(timeout=timeout)
        except queue.Empty:
            peers = " and ".join(session.peer for session in self._sessions)
            raise ChannelTimeoutError(f"nothing came from {peers} for {timeout:g} s") from None
        if isinstance(found, FederationError):
            raise found
        return found

    def stop(self) -> None:
        """Ends the reading; the sessions stay as they are."""
        self._over.set()

    def _read(self, source: int) -> None:
        session = self._sessions[source]
        while not self._over.is_set():
            found: Received | FederationError
            try:
                found = received(source, session.peer, session.receive(_POLL))
            except ChannelTimeoutError:
                continue
            except FederationError as error:
                found = error
            self._put(found)
            if isinstance(found, FederationError) or found.kind == DONE:
                return

    def _put(self, found: Received | FederationError) -> None:
        while not self._over.is_set():
            try:
                self._waiting.put(found, timeout=_POLL)
            except queue.Full:
                continue
            return
