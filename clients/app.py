"""The Flower side of a site: training tasks in, plain refusals out, every debit before its release.

Order in one attempt, and why it cannot change: the plan must have room, then train, then debit durably, only then
answer. A crash before the debit leaves an attempt that never left; a crash after it, one that is paid for. A refusal is
an answer: one that depends on the records, such as of an update that is not finite, waits for the debit too. What
crosses to the holder of a cut model's piece leaves while training goes on: it has a debit of its own, before that.
"""

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from clients.chain.agent import ChainAgent
from clients.conformance import check_release_paths
from clients.memory import Left, Memory, invitation_in, keep_invitation
from clients.private_part import write_private
from clients.secure import Release, SecureSite, Trained
from clients.work import Site, Work, contribute, plans_of
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan
from privacy.errors import (
    BudgetExhaustedError,
    FederationError,
    LocalProtocolError,
    PrivacyError,
    ProtocolError,
    RemoteProtocolError,
    SensitivityError,
    VerificationError,
)
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from strategies.contribution import check_sent
from strategies.messages import RECORD, REFUSED, SPENT, Closing, Hello, RoundReply, RoundTask, SecureTask
from strategies.regions import Plan
from strategies.secure_sum import Units, to_units


@dataclass(frozen=True)
class Account:
    """A site's budget ledger, the asset that its records are in it, and the run that is paid for."""

    ledger: Ledger
    asset: str
    run: str


@dataclass(frozen=True)
class Member:
    """A site in a run: who it is, where its debits go, which job it agreed to.

    Attributes:
      account: Where debits go; ``None`` only where the site adds no noise.
      job: Digest of the settings this site resolved for itself.
      plan: Who holds what.
      secure: Its part in secure aggregation; ``None`` where contributions go one by one, in the clear.
      private: File for the parameters that never leave the site; ``None`` where it has none.
      admit: The site's gate: raises unless an invitation to exactly this job may pass now.
      tested: Told what the site is about to say of its release paths at the roll call.
      witness: Takes in what the server's log says about its growth; raises if it forks or goes back. ``None`` where
        the server keeps none.
      seen: How many entries of the server's log were seen.
      close: Ends the run for this site and states what happened, signed; ``None`` in a simulation.
      cosign: Signs a report of the run, if it says of this site what the site knows, given what left it in the
        rounds; ``None`` where the site has no key to sign with.
      over: Whether it has ended: then nothing is answered but the roll call and the closing, for a coordinator that
        crashed before it had everybody's statement.
    """

    site: Site
    account: Account | None
    job: str
    plan: Plan
    secure: SecureSite | None = None
    private: Path | None = None
    admit: Callable[[bytes], None] = field(kw_only=True)
    tested: Callable[[bytes], None] = field(default=lambda _said: None, kw_only=True)
    witness: Callable[[tuple[bytes, ...]], None] | None = field(default=None, kw_only=True)
    seen: int = field(default=0, kw_only=True)
    close: Callable[[Closing], bytes] | None = field(default=None, kw_only=True)
    cosign: Callable[[bytes, Left], bytes] | None = field(default=None, kw_only=True)
    over: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        if self.site.sum_plan is not None and self.secure is None:
            raise LocalProtocolError("noise that belongs in a masked sum does not protect an update in the clear")


MemberOf = Callable[[Context, bytes], Member]
"""Finds out which site a node is, and what the invitation of that run means to it; raises FederationError."""


def build(member_of: MemberOf, *, entropy: Entropy = secrets.token_bytes) -> ClientApp:
    """Builds the ClientApp of a site.

    Nothing but the roll call is answered before an invitation was let pass, and that only by a site whose release paths
    conform. The gate is asked again at the start of every attempt: since the roll call a window may have closed, or the
    site have paused.

    Args:
      member_of: Called for every message.
      entropy: Randomness of noise and sampling; tests alone replace it.

    Returns: An app that answers the roll call, training tasks and secure aggregation; Flower refuses every other type.
    """
    app = ClientApp()

    def invited(context: Context) -> Member:
        return member_of(context, invitation_in(context.state))

    def admitted(context: Context) -> Member:
        member = _going_on(invited(context))
        member.admit(invitation_in(context.state))
        return member

    @app.query("hello")
    def hello(message: Message, context: Context) -> Message:
        return _answered(message, lambda: _present(member_of, _body(message), context, entropy))

    @app.train("round")
    def train_round(message: Message, context: Context) -> Message:
        return _counted(message, context, lambda: attempt(admitted(context), _body(message), context.state, entropy))

    app.train("masked")(_under_masks(admitted, entropy, chain=False))
    app.train("stage")(_under_masks(admitted, entropy, chain=True))

    @app.query("secagg")
    def secagg(message: Message, context: Context) -> Message:
        return _counted(
            message, context, lambda: _secure(_going_on(invited(context))).answer(_body(message), context.state)
        )

    @app.query("close")
    def close(message: Message, context: Context) -> Message:
        return _answered(message, lambda: _closed(invited(context), _body(message)))

    @app.query("cosign")
    def cosign(message: Message, context: Context) -> Message:
        return _answered(message, lambda: _cosigned(invited(context), _body(message), Left.read(context.state)))

    return app


def _under_masks(
    admitted: Callable[[Context], Member], entropy: Entropy, *, chain: bool
) -> Callable[[Message, Context], Message]:
    def train(message: Message, context: Context) -> Message:
        return _counted(
            message,
            context,
            lambda: masked_attempt(admitted(context), _body(message), context.state, entropy, chain=chain),
        )

    return train


def _present(member_of: MemberOf, invitation: bytes, context: Context, entropy: Entropy) -> bytes:
    member = member_of(context, invitation)
    member.admit(invitation)
    conformance = check_release_paths(member.site, entropy)
    member.tested(conformance)
    keep_invitation(context.state, invitation)
    return Hello(member.site.id, member.site.records.n_units, member.seen, conformance).encode()


def attempt(member: Member, data: bytes, state: RecordDict, entropy: Entropy) -> bytes:
    """Answers one training task in the clear.

    Args:
      member: Who trains.
      data: An encoded ``RoundTask``; untrusted.
      state: The site's memory between rounds; changed only once the answer may leave.
      entropy: Randomness of noise and sampling.

    Returns: An encoded ``RoundReply``.
    Raises: FederationError: Refused, or failed; nothing left, and ``state`` is as before unless it is paid for.
    """
    if member.secure is not None:
        raise RemoteProtocolError(f"{member.site.id} answers under masks only", phase="train")
    task = RoundTask.decode(data)
    work, release = _train(member, task, state, entropy)
    release(state)  # from here on the attempt is paid for
    check_sent(work.contribution, member.site.algorithm.declared, member.site.part.held.size)
    return RoundReply(member.site.id, task.round, task.attempt, work.contribution).encode()


def masked_attempt(member: Member, data: bytes, state: RecordDict, entropy: Entropy, *, chain: bool = False) -> bytes:
    """Answers one training task with the first message of secure aggregation; training ends before it.

    Args:
      member: Who trains.
      data: An encoded ``SecureTask``; untrusted.
      state: The site's memory between rounds; changed only once the answer may leave.
      entropy: Randomness of noise, sampling and keys.
      chain: Whether it was asked to train through a chain, which its own job must say as well.

    Raises: FederationError: Refused, or failed; nothing left and ``state`` is as before.
    """
    secure, site = _secure(member), member.site
    if chain != isinstance(site.agent, ChainAgent):
        how = "by itself" if chain else "through a chain"
        raise RemoteProtocolError(f"{site.id} trains {how}, and was asked for something else", phase="train")
    both = SecureTask.decode(data)
    if again := secure.repeated(both.start):
        return again
    if member.witness is not None:
        member.witness(both.growth)
    work, release = _train(member, both.task, state, entropy)
    declared, noise = site.algorithm.declared, site.sum_plan
    units = _units(site, work, entropy)
    share = partial(noise.share, entropy=entropy) if isinstance(noise, DistributedPlan) else None
    trained = Trained(
        units,
        both.task.arrays,
        member.plan,
        declared,
        release,
        site.weight,
        site.encoding,
        noise is not None,
        share,
    )
    paid, most = (both.task.round, both.task.attempt), _most(site)
    return secure.start(both.start, trained, state, paid=paid, most=most, job=member.job, entropy=entropy)


def _units(site: Site, work: Work, entropy: Entropy) -> dict[str, Units]:
    """Returns what is masked; of an update beyond the grid, what no bound admits.

    An error would be said before it is paid for, and depends on the records and on the model that the server chose.
    """
    declared = site.algorithm.declared
    if work.units is not None:
        return {declared.arrays[0]: work.units}
    try:
        return to_units(work.contribution, declared, site.weight, entropy, site.encoding)
    except SensitivityError:
        return dict.fromkeys(declared.arrays, np.full(site.part.held.size, np.iinfo(np.int64).min))


def _most(site: Site) -> int:
    """Returns how many attempts a site takes part in, over the whole run: what the plan prices, or would."""
    return site.task.training.rounds + site.task.training.retries


def _train(member: Member, task: RoundTask, state: RecordDict, entropy: Entropy) -> tuple[Work, Release]:
    """Trains, and returns the work with what pays for it; nothing is debited or remembered before that is called."""
    site = member.site
    if task.job != member.job:
        raise RemoteProtocolError(f"{site.id} agreed to other settings than the server proposes", phase="train")
    rounds = site.task.training.rounds
    if task.round > rounds or task.attempt > _most(site) - rounds + 1:
        raise RemoteProtocolError(f"{site.id} agreed to no round {task.round} attempt {task.attempt}", phase="train")
    memory = Memory.read(state)
    if (task.round, task.attempt) <= memory.last:
        raise RemoteProtocolError(f"{site.id} has answered round {task.round} attempt {task.attempt}", phase="train")
    _check_arrays(task, site)
    kept = memory.kept_for(task.accepted)
    debits = _debits(member, task)
    if debits and member.account is not None:
        member.account.ledger.check(debits)  # before training, so that a spent budget costs nobody's time
    work = contribute(site, task.arrays, round_number=task.round, attempt=task.attempt, kept=kept, entropy=entropy)

    def release(memory_of_message: RecordDict) -> None:
        if debits and member.account is not None:
            ledger = member.account.ledger
            ledger.release(ledger.reserve(debits))
        if "private" in work.kept and member.private is not None:
            write_private(member.private, site.part, work.kept["private"])
        Memory((task.round, task.attempt), kept, work.kept).write(memory_of_message)

    return work, release


def _closed(member: Member, data: bytes) -> bytes:
    closing = Closing.decode(data)
    if member.close is None or closing.job != member.job:
        raise RemoteProtocolError(f"{member.site.id} has no such run to close", phase="close")
    if closing.model.size != member.site.part.held.size or not np.isfinite(closing.model).all():
        raise RemoteProtocolError(f"{member.site.id} was sent no model of its own size", phase="close")
    return member.close(closing)


def _cosigned(member: Member, data: bytes, left: Left) -> bytes:
    if member.cosign is None:
        raise RemoteProtocolError(f"{member.site.id} signs no reports", phase="cosign")
    return member.cosign(data, left)


def _going_on(member: Member) -> Member:
    if member.over:
        raise RemoteProtocolError(f"the run is over for {member.site.id}", phase="train")
    return member


def _secure(member: Member) -> SecureSite:
    if member.secure is None:
        raise RemoteProtocolError(f"{member.site.id} was not set up for secure aggregation", phase="secagg")
    return member.secure


def _debits(member: Member, task: RoundTask) -> list[Debit]:
    """Returns what an attempt costs: a line for the noise in the steps, and one for the share of noise in the sum."""
    site, account = member.site, member.account
    plans = plans_of(site)
    if plans and account is None:
        raise RemoteProtocolError(f"{site.id} has no ledger: nothing private may leave", phase="train")
    return [
        Debit(
            account.asset,
            task.round,
            task.attempt,
            plan.event(plan.steps_per_attempt),
            limit=plan.max_executions,
            run=account.run,
            claim=plan.claim,
        )
        for plan in plans
        if account is not None
    ]


def _check_arrays(task: RoundTask, site: Site) -> None:
    expected = {"model", "control"} if site.algorithm.local.control else {"model"}
    if set(task.arrays) != expected:
        raise RemoteProtocolError(f"{site.id} was sent other arrays than {', '.join(sorted(expected))}", phase="train")
    size = site.part.held.size
    if any(vector.size != size for vector in task.arrays.values()):
        raise RemoteProtocolError(f"{site.id} was sent a model of another size than its own", phase="train")
    if not all(np.isfinite(vector).all() for vector in task.arrays.values()):
        raise RemoteProtocolError(f"{site.id} was sent a model that is not finite", phase="train")


def _answered(message: Message, answer: Callable[[], bytes]) -> Message:
    """Replies with the answer, or with a reason that holds nothing of the records."""
    try:
        data = answer()
    except BudgetExhaustedError as error:
        return Message(Error(code=SPENT, reason=str(error)), reply_to=message)
    except (PrivacyError, ProtocolError, VerificationError) as error:
        return Message(Error(code=REFUSED, reason=str(error)), reply_to=message)
    except FederationError as error:
        # Speaks of files or records: it stays in the site's own log.
        logging.getLogger(__name__).warning("an attempt failed, and only the fact leaves this site: %s", error)
        return Message(Error(code=REFUSED, reason="the site failed; its own log says why"), reply_to=message)
    except Exception:
        logging.getLogger(__name__).exception("an attempt failed, and only the fact leaves this site")
        return Message(Error(code=REFUSED, reason="the site failed; its own log says why"), reply_to=message)
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: data})}), reply_to=message)


def _counted(message: Message, context: Context, answer: Callable[[], bytes]) -> Message:
    """Replies as ``_answered``, and remembers what leaves."""
    reply, left = _answered(message, answer), Left.read(context.state)
    size = 0 if reply.has_error() else len(_body(reply))
    Left(left.messages + 1, left.bytes + size).write(context.state)
    return reply


def _body(message: Message) -> bytes:
    record = message.content.get(RECORD)
    data = record.get(RECORD) if isinstance(record, ConfigRecord) else None
    if not isinstance(data, bytes):
        raise RemoteProtocolError("the message carries no task", phase="train")
    return data
