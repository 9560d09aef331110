"""A site's agent: one process that stays, only ever reaches out, and ends when it is told to.

Everything but ``FleetRefusedError`` is a reason to wait and come back, for ever: a server that is down, restarted or
busy, behind a cut line or in strange hands. Polling goes on while work is done, one message at a time per run; whoever
has paused the site stops it before anything further is pulled or sent. What a run remembers lives in its ``Context``,
in this process and nowhere else.
"""

import logging
import queue
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from flwr.app import Context, Error, Message, RecordDict

from clients.connection import FleetError, FleetRefusedError
from clients.fleet import HEARTBEAT_SECONDS, Fleet, Head, payload_of
from privacy.errors import FederationError
from strategies.messages import REFUSED

SHORTEST_POLL, LONGEST_POLL = 0.05, 2.0  # seconds
PATIENCE = 120.0
"""Seconds for which one pull or push is repeated: longer than a line is usually cut, shorter than Flower waits."""
MOST_RUNS = 4
"""Runs whose memory is kept; for one more, that of the longest idle one is forgotten."""
MOST_WAITING = 16
"""Messages of one run that wait their turn; more are dropped."""

ResultT = TypeVar("ResultT")


def back_off(failures: int) -> float:
    """Returns seconds to wait after so many failures in a row: 1.6 at first, 10 at last."""
    return min(1.6 ** min(failures, 8), 10.0)


def poll_pause(idle: float) -> float:
    """Returns seconds until the next poll, an eighth of the time since something last happened, within bounds.

    A message is therefore found late by at most an eighth of the time it was waited for, and never by more than two
    seconds; polling at the shortest pause all the time would keep the server busy with nothing else.
    """
    return min(max(idle / 8, SHORTEST_POLL), LONGEST_POLL)


def stop_on_signals() -> threading.Event:
    """Returns an event that SIGTERM and SIGINT set; for the main thread of a process, once."""
    stop = threading.Event()

    def told(_signal: int, _frame: FrameType | None) -> None:
        # Not here: the main thread may be inside the event's own lock.
        threading.Thread(target=stop.set, daemon=True).start()

    signal.signal(signal.SIGTERM, told)
    signal.signal(signal.SIGINT, told)
    return stop


class _PausedError(Exception):
    """Somebody paused the site between two steps."""


class _Run:
    """The memory of one run, and the thread on which its messages are answered in turn."""

    def __init__(self, context: Context, work: Callable[[Head, Context], None]) -> None:
        self._context, self._work = context, work
        self._waiting: queue.Queue[Head | None] = queue.Queue(MOST_WAITING)
        self._working = False
        threading.Thread(target=self._loop, daemon=True, name=f"run {context.run_id}").start()

    @property
    def busy(self) -> bool:
        return self._working or not self._waiting.empty()

    def take(self, head: Head) -> bool:
        """Returns whether there was room for it."""
        with suppress(queue.Full):
            self._waiting.put_nowait(head)
            return True
        return False

    def end(self) -> None:
        with suppress(queue.Full):  # then its thread is in the middle of work, and ends with the process
            self._waiting.put_nowait(None)

    def _loop(self) -> None:
        while (head := self._waiting.get()) is not None:
            self._working = True
            self._work(head, self._context)
            self._working = False


@dataclass
class Resident:
    """Connects, polls, answers.

    Attributes:
      open_fleet: Opens a connection with the newest certificate and charter; called at every attempt to connect.
      answer: The site's ClientApp; runs on a thread of each run, always the same one.
      allowed: Message types that are looked at; nothing else is pulled, and nothing is said to it.
      paused: Whether the site is to send nothing; asked before every poll, pull and push. If it fails, it is.
      report: Takes plain lines for people.
      sent: Told of every payload before it leaves: Flower's run id, message type, group id, bytes. If it fails,
        nothing leaves.
      tick: Called at every poll, and while there is no connection before every attempt at one: what a site must do
        in time though nobody writes to it.
      clock: Seconds, monotonic.
      back_off: Seconds to wait after so many failures in a row.
    """

    open_fleet: Callable[[], Fleet]
    answer: Callable[[Message, Context], Message]
    allowed: frozenset[str]
    paused: Callable[[], bool]
    report: Callable[[str], None]
    sent: Callable[[int, str, str, bytes], None]
    tick: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.monotonic
    back_off: Callable[[int], float] = back_off
    _stop: threading.Event = field(default_factory=threading.Event)
    _fleet: Fleet | None = None
    _node: int = 0
    _failures: int = 0
    _active: float = 0.0
    _seen: float = 0.0
    _said: tuple[str, ...] = ()
    _runs: dict[int, _Run] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Stays until ``stop`` is set; then tells the server and returns, leaving unfinished work behind.

        Raises: FleetRefusedError: The charter at the server does not list this site's certificate.
        """
        self._stop = stop
        try:
            while not stop.is_set():
                try:
                    self.tick()
                    self._stay()
                except FleetRefusedError:
                    raise
                except FederationError as error:
                    self._say(*error.lines())
                except Exception as error:  # an agent that is gone helps nobody
                    logging.getLogger(__name__).exception("the connection failed in a way that nobody foresaw")
                    self._say(f"the connection failed: {type(error).__name__}")
                self._failures += 1
                stop.wait(self.back_off(self._failures))
        finally:
            for run in self._runs.values():
                run.end()

    def _stay(self) -> None:
        """Holds one connection until it is lost, or the agent is told to stop."""
        over, fleet = threading.Event(), self.open_fleet()
        beat = threading.Thread(target=_beat, args=(fleet, over), daemon=True, name="heartbeat")
        try:
            # So soon the server has not missed the node, and refuses to let another agent with its keys take it.
            unmissed = self.clock() - self._seen < 2 * HEARTBEAT_SECONDS
            self._node = fleet.activate(self._node if unmissed else 0)
            self._fleet, self._seen = fleet, self.clock()
            beat.start()
            self._poll(fleet, over)
        finally:
            self._fleet = None
            over.set()
            if beat.is_alive():
                beat.join()  # or a last heartbeat would bring the node back
            if self._stop.is_set():
                with suppress(FederationError):
                    fleet.deactivate()
            fleet.close()

    def _poll(self, fleet: Fleet, over: threading.Event) -> None:
        self._active = self.clock()
        while not self._stop.is_set() and not over.is_set():
            self.tick()
            if self._is_paused():
                self._say("paused: this site answers nothing until it is resumed")
            else:
                head = fleet.poll()
                self._failures, self._seen = 0, self.clock()
                self._say(f"connected as node {self._node}")
                if head is not None:
                    self._active = self.clock()
                    self._take(head)
            self._stop.wait(poll_pause(self.clock() - self._active))

    def _take(self, head: Head) -> None:
        """Puts a message to its run's others, if it is of a kind that is answered here."""
        if head.kind not in self.allowed:
            self.report(f"refused unread: a message of type {head.kind[:40]!r}")
            return
        run = self._runs.pop(head.run, None) or self._new_run(head)
        if run is None or not run.take(head):
            self.report(f"refused unread: a {head.kind} message, for more are waiting than a site takes")
        if run is not None:
            self._runs[head.run] = run  # the last in the order is the one that was active last

    def _new_run(self, head: Head) -> _Run | None:
        if len(self._runs) >= MOST_RUNS:
            idle = next((number for number, run in self._runs.items() if not run.busy), None)
            if idle is None:
                return None
            self._runs.pop(idle).end()
        context = Context(run_id=head.run, node_id=self._node, node_config={}, state=RecordDict(), run_config={})
        return _Run(context, self._work)

    def _work(self, head: Head, context: Context) -> None:
        """Pulls, answers and pushes one message; whatever goes wrong, the agent stays."""
        what = f"a {head.kind} message of run {head.run}"
        try:
            message = self._insist(lambda fleet: fleet.pull(head))
            reply = self._answered(message, context)
            payload = payload_of(reply)
            self._check_pause()
            if payload:
                self.sent(head.run, head.kind, head.message.metadata.group_id, payload)
            self._insist(lambda fleet: fleet.push(reply))
        except _PausedError:
            self.report(f"paused: {what} was dropped, and nothing was sent")
        except FederationError as error:
            self.report(f"{what} was dropped: {error}")
        except Exception:
            logging.getLogger(__name__).exception("%s was dropped", what)
            self.report(f"{what} was dropped")
        self._active = self.clock()

    def _answered(self, message: Message, context: Context) -> Message:
        try:
            return self.answer(message, context)
        except Exception:
            logging.getLogger(__name__).exception("an answer failed, and only the fact leaves this site")
            return Message(Error(code=REFUSED, reason="the site failed; its own log says why"), reply_to=message)

    def _insist(self, call: Callable[[Fleet], ResultT]) -> ResultT:
        """Repeats a call over whatever connection there is, while that can help and nobody has paused the site."""
        end, failures = self.clock() + PATIENCE, 0
        while True:
            self._check_pause()
            try:
                return call(self._connected())
            except FleetError as error:
                failures += 1
                if not error.passing or self.clock() >= end or self._stop.is_set():
                    raise
            self._stop.wait(self.back_off(failures))

    def _connected(self) -> Fleet:
        fleet = self._fleet
        if fleet is None:
            raise FleetError("there is no connection")
        return fleet

    def _check_pause(self) -> None:
        if self._is_paused():
            raise _PausedError

    def _is_paused(self) -> bool:
        try:
            return self.paused()
        except Exception:
            logging.getLogger(__name__).exception("nobody knows whether this site is paused")
            return True

    def _say(self, *lines: str) -> None:
        """Reports how things stand, once for each change."""
        if lines != self._said:
            self._said = lines
            for line in lines:
                self.report(line)


def _beat(fleet: Fleet, over: threading.Event) -> None:
    """Keeps the node online until ``over``; sets that itself if the server no longer knows the node."""
    while not over.wait(HEARTBEAT_SECONDS):
        with suppress(FederationError):  # polling meets the same trouble, and says so
            if not fleet.heartbeat():
                over.set()
