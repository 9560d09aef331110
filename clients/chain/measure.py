"""Sessions of kind ``measure``: how long a piece takes here, and how long bytes take to get here and back.

`collegium plan --calibrate` asks. Inputs are made up here, no weight changes that anybody uses, and every request is
bounded: so many records, so many repetitions, so many seconds.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, fx

from clients.chain.installed import Installed
from clients.chain.stage import Learning, Stage
from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, ChannelTimeoutError, Opening, Session
from privacy.errors import ConfigError, PrivacyError, RemoteProtocolError
from privacy.secagg.encoding import dumps, loads
from privacy.store.log import Record
from strategies.chain_plan import Optimizer
from strategies.cuts import Piece, build
from strategies.planner import OPTIMIZERS

KIND = "measure"
ECHO, ECHOED = "echo", "echoed"
PIECE, MEASURED = "piece", "measured"
MOST_RECORDS = 4096
MOST_REPEATS = 50
MOST_SECONDS = 5.0
"""Of one request; whatever was measured until then is the answer."""

_MOST_BODY = 2**18
_UNCOUNTED = 2  # repetitions that warm up
_TYPES: dict[str, type] = {
    "start": str, "end": str, "digest": str, "keys": list, "records": int, "repeats": int, "optimizer": str,
    "train": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Probe:
    """What is to be timed; public.

    Attributes:
      piece: Of the model that is installed at both ends.
      records: In a micro-batch.
      repeats: After two that do not count.
      optimizer: Of ``strategies.planner.OPTIMIZERS``.
      train: Whether backward pass and optimiser are timed as well.
    """

    piece: Piece
    records: int
    repeats: int
    optimizer: str = "sgd"
    train: bool = True

    def message(self) -> Message:
        """Returns what is sent."""
        fields = {"records": self.records, "repeats": self.repeats, "optimizer": self.optimizer, "train": self.train}
        return Message(PIECE, body=dumps({**vars(self.piece), "keys": list(self.piece.keys), **fields}))


@dataclass(frozen=True)
class Times:
    """Seconds of every repetition; backward and optimiser empty in inference."""

    forward: tuple[float, ...]
    backward: tuple[float, ...]
    apply: tuple[float, ...]

    def message(self) -> Message:
        """Returns what is sent: whole nanoseconds."""
        nanoseconds = {name: [round(each * 1e9) for each in seconds] for name, seconds in vars(self).items()}
        return Message(MEASURED, body=dumps(nanoseconds))


def read_times(message: Message) -> Times:
    """Reads the answer to a `Probe`. Raises: RemoteProtocolError: It is none."""
    body = loads(message.body, limit=_MOST_BODY)
    names = ("forward", "backward", "apply")
    sound = message.kind == MEASURED and isinstance(body, dict) and set(body) == set(names)
    if not sound or not all(isinstance(body[name], list) for name in names):
        raise RemoteProtocolError("what came is no measurement")
    if not body["forward"] or not all(type(each) is int for name in names for each in body[name]):
        raise RemoteProtocolError("what came is no measurement")
    return Times(*(tuple(each / 1e9 for each in body[name]) for name in names))


def measure(installed: Installed, probe: Probe, clock: Callable[[], float] = time.perf_counter) -> Times:
    """Times a piece on made-up records, on one thread.

    Raises: ConfigError, VerificationError: It is no piece of the installed model.
    """
    stage, x = _stage(installed, probe)
    times: list[tuple[float, ...]] = []
    end = clock() + MOST_SECONDS
    for number in range(-_UNCOUNTED, probe.repeats):
        if number > 0 and clock() > end:
            break
        started = clock()
        y = stage.forward(0, x)
        marks = [clock() - started]
        for work in (partial(stage.backward, 0, torch.ones_like(y)), stage.apply) if probe.train else ():
            started = clock()
            work()
            marks.append(clock() - started)
        if number >= 0:
            times.append(tuple(marks))
    columns = [*zip(*times, strict=True), (), ()]
    return Times(*columns[:3])


def _stage(installed: Installed, probe: Probe) -> tuple[Stage, Tensor]:
    """Builds the piece, and made-up records as they are where it begins."""
    traced, inputs = installed.traced(0, train=probe.train)
    if len(inputs) != 1:
        raise ConfigError("a stage takes one tensor, and this model has more inputs")
    example = inputs[0][:1].expand(probe.records, *inputs[0].shape[1:])
    x = torch.randn(example.shape) if example.is_floating_point() else example.clone()
    if probe.piece.start:
        with torch.no_grad():
            x = _Before(traced.module, probe.piece.start).value_of(x)
    learning = Learning(cast("Optimizer", probe.optimizer), 0.0) if probe.train else None
    return Stage(build(traced, probe.piece), learning), x


class _Before(fx.Interpreter):
    """Runs a model and keeps what one operation gave."""

    def __init__(self, module: fx.GraphModule, name: str) -> None:
        super().__init__(module)
        self._name, self._value = name, torch.empty(0)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name == self._name:
            self._value = value.detach().clone()
        return value

    def value_of(self, x: Tensor) -> Tensor:
        self.run(x)
        return self._value


@dataclass
class MeasureService:
    """Serves the kind ``measure``; whom it lets in, the charter's list of sites and the emergency stop decide.

    Attributes:
      paused: Whether the site's emergency stop is on.
      record: Writes to the site's log.
    """

    installed: Installed
    paused: Callable[[], bool]
    record: Callable[[Record], None]
    _busy: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def admit(self, peer: str, opening: Opening) -> bytes:
        """Lets a session in, or refuses it, on record. Raises: PrivacyError: The site is paused."""
        del opening
        allowed = not self.paused()
        self.record(Record("measure", {"peer": peer, "allowed": allowed}))
        if not allowed:
            raise PrivacyError("this site is paused")
        return b""

    def run(self, session: Session) -> None:
        """Answers until the session is over."""
        while True:
            try:
                message = session.receive()
            except (ChannelClosedError, ChannelTimeoutError):
                return
            if message.kind == ECHO:
                session.send(Message(ECHOED, message.step, message.body, message.tensors))
                continue
            probe = read_probe(message)
            with self._busy:  # one at a time: two would time each other
                session.send(measure(self.installed, probe).message())


def read_probe(message: Message) -> Probe:
    """Reads what `Probe.message` wrote; untrusted. Raises: RemoteProtocolError: It is none, or asks for too much."""
    body = loads(message.body, limit=_MOST_BODY)
    if message.kind != PIECE or not isinstance(body, dict) or set(body) != set(_TYPES):
        raise RemoteProtocolError("what came is no request to measure")
    if any(type(body[name]) is not kind for name, kind in _TYPES.items()):
        raise RemoteProtocolError("a request to measure has a field of another type")
    sound = all(isinstance(key, str) for key in body["keys"]) and body["optimizer"] in OPTIMIZERS
    if not sound or not 1 <= body["records"] <= MOST_RECORDS or not 1 <= body["repeats"] <= MOST_REPEATS:
        raise RemoteProtocolError("a request to measure is out of bounds")
    piece = Piece(body.pop("start"), body.pop("end"), tuple(body.pop("keys")), body.pop("digest"))
    return Probe(piece, **body)
