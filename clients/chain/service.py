"""A holder at work: what it checks before it takes a stage of a plan, and the sessions that then pass through it.

A session is let in only after the plan is known, allowed by the charter, the floor and the site's policy, its pieces
are those of the model that is installed here, and the next holder has let it in as well: a refusal anywhere down the
chain is the answer to the owner's opening, before anything of a record has left.
"""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from clients.chain.held import Copy, Held
from clients.chain.installed import Installed
from clients.chain.loop import Bounds, StageLoop
from clients.chain.opening import Dial
from clients.chain.request import End, StageRequest, read_request
from clients.chain.stage import Learning, Stage
from clients.channel.session import ChannelTimeoutError, Opening, Session, told
from privacy.errors import ConfigError, FederationError, PrivacyError, RemoteProtocolError, VerificationError
from privacy.policy.channel_requests import HoldFacts
from privacy.store.log import Record
from strategies.chain_plan import ChainPlan, check_crossings

_HOP = 1.0  # seconds that a stage keeps for itself of what whoever opened it waits
_MOST_NAMES = 64  # under which one owner has pieces kept
_BEGIN = 60.0  # seconds after which a session that was let in and never came is forgotten


@dataclass(frozen=True)
class Allowed:
    """A plan that somebody entitled to has allowed.

    Attributes:
      seed: Of the initial parameters.
      study: Digest of the study whose run allows it, hex; empty: the charter does.
      fewest: Sites that a sum of the run takes at least; 1 where the owner trains by itself.
    """

    plan: ChainPlan
    seed: int
    study: str = ""
    fewest: int = 1


Authorise = Callable[[str, StageRequest], Allowed]
"""From the authenticated peer and its request to the plan; raises FederationError for one that nobody allowed."""


_Name = tuple[str, bytes]  # of a session: by whom, and which of theirs


@dataclass
class _Work:
    """A stage that was let in, and whom it talks to."""

    peer: str
    request: StageRequest
    allowed: Allowed
    stage: Stage
    onward: Session | None
    home: "queue.SimpleQueue[Session]" = field(default_factory=queue.SimpleQueue)
    has_home: bool = False
    over: threading.Event = field(default_factory=threading.Event)


@dataclass
class StageService:
    """Serves the kind ``stage``; safe to use from the listener's threads.

    Attributes:
      site: Id of this site.
      device: Name in plans of the machine that this is; empty: any of the site's.
      gate: Lets a hold pass or raises; either way the decision is on record first.
      held: Folder of the pieces of runs: ``runs/RUN/DEVICE``, or ``of-OWNER/NAME/DEVICE`` (`_held`).
      record: Writes to the site's log.
      deadline: Seconds in the middle of a step without a word from a neighbour, after which a chain is over.
    """

    site: str
    device: str
    installed: Installed
    authorise: Authorise
    gate: Callable[[HoldFacts], None]
    dial: Dial
    held: Path
    record: Callable[[Record], None]
    deadline: float = 30.0
    _ready: dict[_Name, tuple[_Work, threading.Timer]] = field(default_factory=dict, repr=False)
    _chains: dict[tuple[bytes, int], _Work] = field(default_factory=dict, repr=False)
    _open: dict[_Name, Session] = field(default_factory=dict, repr=False)
    _runs: dict[Path, Held] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def admit(self, peer: str, opening: Opening) -> bytes:
        """Lets a session in, or refuses it, on record. Raises: FederationError: Refused, with the one reason."""
        with self._on_record(peer):
            request = read_request(opening.body)
            allowed = self.authorise(peer, request)
            self._check_place(peer, request, allowed.plan)
            joined = self._joined(peer, request)
        if joined is None:
            self.gate(_facts(peer, opening, allowed))
            with self._on_record(peer):
                joined = self._begun(peer, request, allowed, opening.purpose)
        late = threading.Timer(_BEGIN, self._forget, [peer, opening.session])
        late.daemon = True
        with self._lock:
            self._ready[peer, opening.session] = joined, late
        late.start()
        return b""

    def run(self, session: Session) -> None:
        """Works until the session is over. Raises: RemoteProtocolError: It is not, or not any more, expected."""
        with self._lock:
            name = session.peer, session.id
            if name not in self._ready:
                raise RemoteProtocolError("the session came too late", phase="open")
            work, late = self._ready.pop(name)
            self._open[name] = session
        late.cancel()
        try:
            if read_request(session.opening.body).end is End.BEFORE:
                self._work(session, work)
            else:
                work.home.put(session)
                work.over.wait()
        finally:
            with self._lock:
                del self._open[name]

    def stop(self, reason: str) -> None:
        """Ends every session with one plain line, on record; new ones are judged as before."""
        with self._lock:
            there = [*self._open.values()]
        if there:
            self.record(Record("stages-stopped", {"sessions": len(there), "reason": reason}))
        for session in there:
            session.close(reason)

    def _check_place(self, peer: str, request: StageRequest, plan: ChainPlan) -> None:
        """Refuses a stage that is not this site's, a neighbour that is none, and a crossing without its release."""
        place, held = request.place, plan.held
        if place >= len(held) or held[place].organisation != self.site:
            raise RemoteProtocolError(f"stage {place + 1} of the plan is not for {self.site}", phase="open")
        if self.device not in {"", held[place].device}:
            raise RemoteProtocolError(f"the plan is for {held[place].device}, and this is {self.device}", phase="open")
        home = request.end is End.HOME
        before = held[place - 1].organisation if place and not home else plan.owner
        if peer != before or (home and place != len(held) - 1):
            raise VerificationError(f"{peer} is not whom stage {place + 1} of the plan works with")
        check_crossings(plan)

    def _joined(self, peer: str, request: StageRequest) -> _Work | None:
        """Finds the chain whose last stage the owner wants to talk to as well; ``None``: a stage is to begin."""
        with self._lock:
            work = self._chains.get((request.chain, request.place))
        if request.end is End.BEFORE:
            if work is not None:
                raise RemoteProtocolError(f"{peer} opens a chain that is at work here already", phase="open")
            return None
        if work is None or replace(request, end=End.BEFORE, patience=work.request.patience) != work.request:
            raise RemoteProtocolError(f"{peer} asks for the end of a chain that is not at work here", phase="open")
        with self._lock:
            if work.has_home:
                raise RemoteProtocolError("the chain has its end at home already", phase="open")
            work.has_home = True
        return work

    def _begun(self, peer: str, request: StageRequest, allowed: Allowed, purpose: str) -> _Work:
        """Builds the piece, and opens the rest of the chain."""
        plan, stage = allowed.plan, self._piece(request, allowed)
        place, onward = request.place + 1, None
        if place < len(plan.held):
            following = replace(request, place=place, patience=max(request.patience - _HOP, _HOP))
            onward = self.dial(plan.held[place], following, purpose)
        work = _Work(peer, request, allowed, stage, onward)
        with self._lock:
            self._chains[request.chain, request.place] = work
        return work

    def _piece(self, request: StageRequest, allowed: Allowed) -> Stage:
        """Builds the piece, with the parameters that the request means."""
        plan = allowed.plan
        module = self.installed.piece(plan.held[request.place], allowed.seed, train=plan.train)
        stage = Stage(module, Learning(plan.optimizer, request.learning_rate) if plan.train else None)
        if request.run:
            with self._lock:
                held = self._held(request, allowed, stage)
                state = held.begin(request.round) if request.round else held.latest()[1]
            try:
                stage.load(state)
            except ValueError:
                raise ConfigError(f"what is held here of {request.run} is of another piece than the plan's") from None
        return stage

    def _held(self, request: StageRequest, allowed: Allowed, stage: Stage) -> Held:
        """Finds what is kept under a name: of a run that the coordinator invited to, or of an owner by itself.

        An owner cannot touch a run that it was not invited to; it can read what the run left here if its plan is
        allowed.
        """
        owner, device = allowed.plan.owner, allowed.plan.held[request.place].device
        for name in (owner, device, request.run):
            if Path(name).name != name or name.startswith("."):
                raise RemoteProtocolError(f"nothing can be kept here for {name!r}", phase="open")
        own = self.held / f"of-{owner}"
        there = own / request.run
        if allowed.study or not (request.round or there.exists()):
            there = self.held / "runs" / request.run
        elif not there.exists() and own.exists() and len([*own.iterdir()]) >= _MOST_NAMES:
            raise PrivacyError(f"{owner} has {_MOST_NAMES} pieces here and gets no more")
        path = there / device
        if path not in self._runs:
            self._runs[path] = Held.of_folder(path, stage.state(), fewest=allowed.fewest)
        return self._runs[path]

    def _work(self, session: Session, work: _Work) -> None:
        why, onward, request = "", work.onward, work.request
        try:
            if onward is None:
                onward = _arrived(work) if request.place else session
            StageLoop(
                work.stage,
                labels=work.allowed.plan.labels_leave and work.onward is None,
                bounds=Bounds(steps=request.steps, deadline=self.deadline),
                finished=lambda: self._keep(work),
            ).run(session, onward)
        except FederationError as error:
            why, plan = told(error), work.allowed.plan.digest
            self.record(Record("chain-ended", {"peer": work.peer, "plan": plan, "reason": str(error)}))
        finally:
            self._over(work)
            session.close(why)
            if onward is not None:
                onward.close(why)

    def _keep(self, work: _Work) -> None:
        """Keeps what a site trained in a round of a run, durably, before the owner hears that all is well."""
        request = work.request
        if request.run and request.round and work.allowed.plan.train:
            copy = Copy(request.attempt, request.weight, work.allowed.plan.owner, work.stage.state())
            with self._lock:
                self._held(request, work.allowed, work.stage).finish(request.round, copy)

    def _forget(self, peer: str, session: bytes) -> None:
        """Drops what was let in and never came: its line was cut in that moment."""
        with self._lock:
            work, _ = self._ready.pop((peer, session), (None, None))
        if work is None:
            return
        if work.onward is not None:
            work.onward.close("the chain did not begin")
        self._over(work)

    def _over(self, work: _Work) -> None:
        with self._lock:
            self._chains.pop((work.request.chain, work.request.place), None)
        work.over.set()

    @contextmanager
    def _on_record(self, peer: str) -> Iterator[None]:
        try:
            yield
        except FederationError as error:
            self.record(Record("stage-refused", {"peer": peer, "reason": str(error)}))
            raise


def _facts(peer: str, opening: Opening, allowed: Allowed) -> HoldFacts:
    plan = allowed.plan
    return HoldFacts(
        asker=peer,
        owner=plan.owner,
        plan=plan.digest,
        purpose=opening.purpose,
        train=plan.train,
        stages=len(plan.stages),
        micro_batch=plan.micro_batch,
        study=allowed.study,
    )


def _arrived(work: _Work) -> Session:
    try:
        return work.home.get(timeout=work.request.patience)
    except queue.Empty:
        raise ChannelTimeoutError(f"{work.allowed.plan.owner} did not come for the answers of the chain") from None
