"""A real site: from its folder on disk to the answers that its resident agent gives.

Everything that decides is the site's own: charter, policy, study, data, ledger, application. From the coordinator come
an invitation, which the gate judges, and the numbers of the model. Each message finds the folder as it is at that
moment: a policy that was edited, a charter that was added, a list of those who opted out.
"""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from clients import cosigning
from clients.agents import check_agents
from clients.app import Account, Member, build
from clients.assets import Loaded, load
from clients.chain.opening import PeerDial
from clients.chain.outgoing import Outgoing
from clients.chain.payer import Payer
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel_gate import ChannelGate
from clients.gate import Decision, Gate
from clients.judge import SiteJudge
from clients.private_part import read_private
from clients.run_store import RunStore
from clients.scores import Scorer
from clients.secure import SecureSite
from clients.server_log import ServerLog
from clients.sites import site_of
from clients.testimony import state
from clients.work import Site, plans_of
from privacy.audit.egress import Sent
from privacy.audit.site_statement import opened
from privacy.audit.testimony import keys_of, server_log
from privacy.charter.document import Charter
from privacy.errors import ConfigError, FederationError, PrivacyError, RemoteProtocolError
from privacy.policy.engine import CedarPolicy
from privacy.secagg.context import Roster, RoundContext
from privacy.store.admissions import Admissions
from privacy.store.application import application_digest
from privacy.store.ledger import Ledger
from privacy.store.log import Log, Record
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_folder import SiteFolder
from strategies.invitation import Invitation, resolve_invited
from strategies.job import Job
from strategies.messages import Closing
from strategies.study import Study, read_study
from strategies.task import SiteId

RUNS_FOLDER = "runs"
PRIVATE_FILE = "private.safetensors"
Now = Callable[[], datetime]


@dataclass
class _Joined:
    """A run that this process takes part in."""

    invitation: Invitation
    job: Job
    site: Site
    loaded: Loaded
    store: RunStore
    secure: SecureSite


@dataclass
class RealSite:
    """A site's side of every run; one process at a time, which holds the folder's lock.

    Attributes:
      now: The site's own clock, with a time zone.
    """

    folder: SiteFolder
    now: Now
    study: Study
    log: Log = field(repr=False)
    ledger: Ledger = field(repr=False)
    _app: ClientApp = field(init=False, repr=False)
    _dialler: Dialler | None = field(default=None, init=False, repr=False)
    _joined: dict[bytes, _Joined] = field(default_factory=dict, repr=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def __post_init__(self) -> None:
        self._app = build(self._member_of)

    @classmethod
    def opened(cls, folder: SiteFolder, now: Now) -> "RealSite":
        """Reads the folder. Raises: FederationError: Something in it does not hold; nothing runs before it does."""
        study = read_study(folder.study, where=str(folder.path / folder.settings.study))
        return cls(folder, now, study, folder.log(), folder.ledger())

    @property
    def id(self) -> SiteId:
        """Of the site."""
        return SiteId(self.folder.holder.id)

    def answer(self, message: Message, context: Context) -> Message:
        """Answers one message; what the run remembers, and the ledger's head, are on disk before this returns."""
        with self._lock:
            store = RunStore.of_node(self._runs, context.run_id)
            if store is not None:
                store.restore(context.state)
            reply = self._app(message, context)
            if reply.has_error():
                self._log_unanswered(message, reply, store)
            store = RunStore.of_node(self._runs, context.run_id)
            if store is not None and not reply.has_error():
                store.restore(context.state)  # after a roll call: what was remembered under the run's older number
                store.save(context.state)
            self._log_ledger()
            return reply

    def sent(self, run: int, kind: str, group: str, payload: bytes) -> None:
        """Writes a payload down before it leaves. Raises: ConfigError: It cannot: then nothing leaves."""
        store = RunStore.of_node(self._runs, run)
        if store is not None:
            store.sent(Sent.of(kind, group, payload))

    def expire(self) -> None:
        """Erases what attempts remember whose time is up; whoever runs the site calls this every few seconds."""
        for joined in tuple(self._joined.values()):
            joined.secure.expire()

    @property
    def _runs(self) -> Path:
        return self.folder.path / RUNS_FOLDER

    def _member_of(self, context: Context, data: bytes) -> Member:
        charter = self.folder.charter
        gate = self._gate(charter)
        try:
            joined = self._join(gate, data)
        except FederationError as error:
            gate.refused(data, error)
            raise
        site, account = joined.site, Account(self.ledger, joined.invitation.asset, joined.invitation.run)
        witness = ServerLog(self.folder.path, server_log(charter))

        def on_record(check: Callable[[], None], by: str = "") -> None:
            try:
                check()
            except FederationError as error:
                gate.refused(data, error, joined.invitation, by=by)
                raise

        def admit(invitation: bytes) -> None:
            on_record(joined.loaded.refuse_opted_out, by="opt-out")
            self._gate(charter, joined.loaded).check(invitation, joined.job, plans_of(site))
            joined.store.admit(invitation, site.records.n_units, context.run_id)

        return Member(
            site,
            account,
            joined.job.digest,
            joined.job.plan,
            joined.secure,
            joined.store.path / PRIVATE_FILE if site.part.private else None,
            admit=admit,
            tested=joined.store.tested,
            witness=lambda growths: on_record(lambda: witness.accept(growths), by="the server's log"),
            seen=witness.seen,
            close=lambda closing: self._close(joined, charter, witness, closing),
            cosign=lambda data, _left: self._cosign(joined, charter, data),
            over=joined.store.closed,
        )

    def _join(self, gate: Gate, data: bytes) -> _Joined:
        """Finds the run that an invitation is to, or resolves it: job, data, plan, keys."""
        invitation = gate.open(data)
        store = RunStore(self._runs, invitation.run)
        if store.invitation not in {b"", data}:
            raise RemoteProtocolError(f"the run {invitation.run} was begun with another invitation", phase="hello")
        joined = self._joined.get(data)  # by all of it: another invitation to the same run is another job
        if joined is None:
            job = resolve_invited(self.study, invitation)
            check_agents(job, [self.id])
            joined = self._resolved(gate, invitation, job, store, data)
            self._joined = {data: joined}  # one at a time: the memory of another run is on disk
        return joined

    def _resolved(self, gate: Gate, invitation: Invitation, job: Job, store: RunStore, data: bytes) -> _Joined:
        asset = self.folder.settings.assets.get(invitation.asset)
        if asset is None:
            raise PrivacyError(f"{self.id} has no asset {invitation.asset}")
        loaded = load(asset, job.task, priced=store.units)
        site = site_of(job, self.id, loaded.train, self._open_chain(data, invitation, job, loaded))

        def admits(context: RoundContext) -> None:
            now = self._gate(self.folder.charter, loaded)  # the policy as it is at this START, not at the roll call
            now.check_context(invitation, context)
            if now.own is not None:
                now.own.judge(invitation, job, plans_of(site), context)

        secure = SecureSite(
            self.id,
            self.folder.identity,
            Roster(gate.charter.version, keys_of(gate.charter)),
            Admissions(self.folder.path / LEDGER_FILE),
            time.monotonic,
            admits,
        )
        return _Joined(invitation, job, site, loaded, store, secure)

    def _open_chain(self, data: bytes, invitation: Invitation, job: Job, loaded: Loaded) -> Outgoing | None:
        """Returns the way to the holder of a cut model's piece; nothing where no model is cut."""
        if job.chain is None:
            return None
        if self.folder.settings.channel is None:
            raise ConfigError(
                f"{self.id} has no [channel] in site.toml, and the run trains through {job.chain.holder}",
                hint=f'Add [channel.peers] with {job.chain.holder} = "host:port": docs/how-to-site.md.',
            )
        if self._dialler is None:
            self._dialler = Dialler(Identity.of_folder(self.folder, self.now))

        def peers() -> Mapping[str, str]:
            channel = self.folder.settings.channel
            return {} if channel is None else channel.peers

        def record(entry: Record) -> None:
            self.log.append([entry], self.folder.identity)

        gate = ChannelGate.of_folder(self.folder, self.now)
        payer = Payer(
            self.ledger,
            invitation.asset,
            invitation.purpose,
            most_records=loaded.train.most_of_unit,
            note_ledger=self._log_ledger,
        )
        return Outgoing(data, invitation, job, gate, payer, PeerDial(self._dialler, peers), record)

    def _gate(self, charter: Charter, loaded: Loaded | None = None) -> Gate:
        """Returns the site's gate; ``loaded``: the records of the run that it is to judge."""
        settings, most_records = self.folder.settings, 1 if loaded is None else loaded.train.most_of_unit
        policy = CedarPolicy(self.folder.policy, "site")

        def local() -> datetime:
            return self.now().astimezone(settings.timezone)

        judge = SiteJudge(self.id, charter, policy, settings.assets, self.ledger, local, most_records)
        return Gate(self.id, charter, application_digest(), self.now, self._record, judge)

    def _record(self, decision: Decision) -> None:
        self.log.append([Record("decision", asdict(decision))], self.folder.identity)

    def _log_unanswered(self, message: Message, reply: Message, store: RunStore | None) -> None:
        """Puts on record that a message got no answer, also where the gate let it pass, as a replayed START."""
        run, kind = store.name if store else "", message.metadata.message_type
        content = {"run": run, "kind": kind, "group": message.metadata.group_id, "reason": reply.error.reason or ""}
        self.log.append([Record("unanswered", content)], self.folder.identity)

    def _log_ledger(self) -> None:
        """Puts the ledger's head into the log whenever it moved, before anything that it paid for leaves."""
        self.log.note_ledger(self.ledger, self.folder.identity)

    def _close(self, joined: _Joined, charter: Charter, witness: ServerLog, closing: Closing) -> bytes:
        """Scores the model at home, keeps it, ends the run, and states what happened; asked again, only the last."""
        if not joined.store.closed:
            joined.store.keep("model.f32", closing.model.tobytes())
            if joined.job.chain is None:  # of a chain, a site has the ends alone
                self._keep_score(joined, closing)
        statement = state(
            joined.store,
            joined.invitation,
            joined.job.digest,
            site=self.id,
            charter=charter,
            log=self.log,
            ledger=self.ledger,
            witnessed=witness.note,
        )
        signed = statement.sign(self.folder.identity)
        joined.store.keep("statement", signed)
        if not joined.store.closed:
            self.log.append([Record("run-closed", {"run": joined.invitation.run})], self.folder.identity)
            joined.store.close()
        return signed

    def _cosign(self, joined: _Joined, charter: Charter, data: bytes) -> bytes:
        """Signs a report of the run that says of this site what it stated last; that it does is on record first."""
        key = self.folder.identity
        if not (stated := joined.store.statement):
            raise RemoteProtocolError(f"{self.id} has stated nothing about the run yet", phase="cosign")
        own = opened(stated, {self.id: key.public_key})
        signature = cosigning.sign(data, self.id, key, lambda report: cosigning.stated_doubts(report, own, charter))
        content = {"run": joined.invitation.run, "report": sha256(data).hexdigest()}
        self.log.append([Record("report-signed", content)], key)
        return signature

    def _keep_score(self, joined: _Joined, closing: Closing) -> None:
        site, test, task = joined.site, joined.loaded.test, joined.job.task
        scorer = Scorer(task, joined.job.spec_of(self.id))
        path = joined.store.path / PRIVATE_FILE
        private = read_private(path, site.part) if path.is_file() else None
        score = scorer.score(site.part.piece_of(closing.model, site.initial, private), test)
        told = {"metric": task.metric, "score": score, "interval": scorer.interval(score, test), "n_test": len(test)}
        joined.store.keep("score.json", json.dumps(told).encode() + b"\n")
