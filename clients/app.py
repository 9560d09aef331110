"""The Flower side of a site: two message types in, plain refusals out, every debit before its release.

Order in one attempt, and why it cannot change: the plan must have room, then train, then debit durably, only then
answer. A crash before the debit leaves an attempt that never left; a crash after it, one that is paid for.
"""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.secure import Release, SecureSite, Trained
from clients.work import Site, Work, contribute
from privacy.dp.noise import Entropy
from privacy.errors import FederationError, PrivacyError, ProtocolError, RemoteProtocolError
from privacy.store.ledger import Debit, Ledger
from strategies.contribution import Vector
from strategies.messages import RECORD, REFUSED, Hello, RoundReply, RoundTask, SecureTask
from strategies.models import build as build_model
from strategies.models import layout_of
from strategies.task import ModelSpec

_STATE = "collegium-site"


@dataclass(frozen=True)
class Member:
    """A site in a run: who it is, where its debits go, which job it agreed to.

    Attributes:
      ledger: ``None`` only where nothing is private (no plan).
      job: Digest of the settings this site resolved for itself.
      secure: Its part in secure aggregation; ``None`` where contributions go one by one, in the clear.
    """

    site: Site
    ledger: Ledger | None
    job: str
    secure: SecureSite | None = None


def build(member_of: Callable[[Context], Member], *, entropy: Entropy = secrets.token_bytes) -> ClientApp:
    """Builds the ClientApp of a site.

    Args:
      member_of: Finds out which site this node is and what it agreed to; called for every message.
      entropy: Randomness of noise and sampling; tests alone replace it.

    Returns: An app that answers the roll call, training tasks and secure aggregation; Flower refuses every other type.
    """
    app = ClientApp()

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        def answer() -> bytes:
            site = member_of(context).site
            return Hello(site.id, len(site.records.y)).encode()

        return _answered(message, answer)

    @app.train("round")
    def train_round(message: Message, context: Context) -> Message:
        return _answered(message, lambda: attempt(member_of(context), _body(message), context.state, entropy))

    @app.train("masked")
    def train_masked(message: Message, context: Context) -> Message:
        return _answered(message, lambda: masked_attempt(member_of(context), _body(message), context.state, entropy))

    @app.query("secagg")
    def secagg(message: Message, context: Context) -> Message:
        return _answered(message, lambda: _secure(member_of(context)).answer(_body(message), context.state))

    return app


def attempt(member: Member, data: bytes, state: RecordDict, entropy: Entropy) -> bytes:
    """Answers one training task in the clear.

    Args:
      member: Who trains.
      data: An encoded ``RoundTask``; untrusted.
      state: The site's memory between rounds; changed only once the answer may leave.
      entropy: Randomness of noise and sampling.

    Returns: An encoded ``RoundReply``.
    Raises: FederationError: Refused, or failed; nothing left and ``state`` is as before.
    """
    if member.secure is not None:
        raise RemoteProtocolError(f"{member.site.id} answers under masks only", phase="train")
    task = RoundTask.decode(data)
    work, release = _train(member, task, state, entropy)
    release(state)  # from here on the attempt is paid for
    return RoundReply(member.site.id, task.round, task.attempt, work.contribution).encode()


def masked_attempt(member: Member, data: bytes, state: RecordDict, entropy: Entropy) -> bytes:
    """Answers one training task with the first message of secure aggregation; training ends before it.

    Raises: FederationError: Refused, or failed; nothing left and ``state`` is as before.
    """
    secure = _secure(member)
    both = SecureTask.decode(data)
    work, release = _train(member, both.task, state, entropy)
    declared, weight = member.site.algorithm.declared, len(member.site.records.y)
    trained = Trained(work.contribution, both.task.arrays, declared, weight, release)
    return secure.start(both.start, trained, state, job=member.job, entropy=entropy)


def _train(member: Member, task: RoundTask, state: RecordDict, entropy: Entropy) -> tuple[Work, Release]:
    """Trains, and returns the work with what pays for it; nothing is debited or remembered before that is called."""
    site = member.site
    if task.job != member.job:
        raise RemoteProtocolError(f"{site.id} agreed to other settings than the server proposes", phase="train")
    memory = _Memory.read(state)
    if (task.round, task.attempt) <= memory.last:
        raise RemoteProtocolError(f"{site.id} has answered round {task.round} attempt {task.attempt}", phase="train")
    _check_arrays(task, site)
    control = memory.control_for(task.accepted)
    if site.plan is not None and member.ledger is not None:
        site.plan.check_room(member.ledger.executed(site.id))
    work = contribute(site, task.arrays, round_number=task.round, control=control, entropy=entropy)

    def release(memory_of_message: RecordDict) -> None:
        _debit(member, task, work)
        _Memory((task.round, task.attempt), control, work.control).write(memory_of_message)

    return work, release


def _secure(member: Member) -> SecureSite:
    if member.secure is None:
        raise RemoteProtocolError(f"{member.site.id} was not set up for secure aggregation", phase="secagg")
    return member.secure


def _debit(member: Member, task: RoundTask, work: Work) -> None:
    plan = member.site.plan
    if plan is None:
        return
    if member.ledger is None:
        raise RemoteProtocolError(f"{member.site.id} has no ledger: nothing private may leave", phase="train")
    debit = Debit(member.site.id, task.round, task.attempt, plan.event(work.executions))
    member.ledger.debit(debit, limit=plan.max_executions)


def _check_arrays(task: RoundTask, site: Site) -> None:
    expected = {"model", "control"} if site.algorithm.local.control else {"model"}
    if set(task.arrays) != expected:
        raise RemoteProtocolError(f"{site.id} was sent other arrays than {', '.join(sorted(expected))}", phase="train")
    size = _size_of(site.task.model, site.task.n_inputs)
    if any(vector.size != size for vector in task.arrays.values()):
        raise RemoteProtocolError(f"{site.id} was sent a model of another size than its own", phase="train")
    if not all(np.isfinite(vector).all() for vector in task.arrays.values()):
        raise RemoteProtocolError(f"{site.id} was sent a model that is not finite", phase="train")


@lru_cache(maxsize=8)
def _size_of(spec: ModelSpec, n_inputs: int) -> int:
    return layout_of(build_model(spec, n_inputs, seed=0)).size


def _answered(message: Message, answer: Callable[[], bytes]) -> Message:
    """Replies with the answer, or with a reason that holds nothing of the records."""
    try:
        data = answer()
    except (PrivacyError, ProtocolError) as error:
        return Message(Error(code=REFUSED, reason=str(error)), reply_to=message)
    except FederationError as error:
        # Speaks of files or records: it stays in the site's own log.
        logging.getLogger(__name__).warning("an attempt failed, and only the fact leaves this site: %s", error)
        return Message(Error(code=REFUSED, reason="the site failed; its own log says why"), reply_to=message)
    except Exception:
        logging.getLogger(__name__).exception("an attempt failed, and only the fact leaves this site")
        return Message(Error(code=REFUSED, reason="the site failed; its own log says why"), reply_to=message)
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: data})}), reply_to=message)


def _body(message: Message) -> bytes:
    record = message.content.get(RECORD)
    data = record.get(RECORD) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise RemoteProtocolError("the message carries no task", phase="train")
    return data


@dataclass(frozen=True)
class _Memory:
    """What a site remembers between rounds. ``pending`` becomes ``control`` once the server says it was summed.

    A contribution that got lost must not move c_i: the server's c would no longer be the mean of the sites' c_i
    (Karimireddy et al. 2020, Algorithm 1), and state of an attempt that counted nowhere is discarded whole.
    """

    last: tuple[int, int] = (0, 0)
    control: Vector | None = None
    pending: Vector | None = None

    @classmethod
    def read(cls, state: RecordDict) -> "_Memory":
        record = state.get(_STATE)
        if not isinstance(record, ConfigRecord):
            return cls()
        return cls(
            (_int(record, "round"), _int(record, "attempt")), _vector(record, "control"), _vector(record, "pending")
        )

    def control_for(self, accepted: tuple[int, int]) -> Vector | None:
        return self.pending if accepted == self.last and self.pending is not None else self.control

    def write(self, state: RecordDict) -> None:
        round_number, attempt_number = self.last
        vectors = {"control": self.control, "pending": self.pending}
        state[_STATE] = ConfigRecord(
            {
                "round": round_number,
                "attempt": attempt_number,
                **{name: vector.tobytes() for name, vector in vectors.items() if vector is not None},
            }
        )


def _int(record: Mapping[str, object], name: str) -> int:
    value = record[name]
    return value if isinstance(value, int) else 0


def _vector(record: Mapping[str, object], name: str) -> Vector | None:
    data = record.get(name)
    return np.frombuffer(data, dtype=np.float32) if isinstance(data, bytes) else None
