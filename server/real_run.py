"""A run of real sites, as the coordinator begins it, goes on with it after a crash, and closes it.

Everything a run is lies in its folder: the invitation, which says all that was decided; the checkpoints; what was
received. So resuming takes no options: it is the same run, with the same name, to the same invitation.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from privacy.audit import egress
from privacy.audit.approval import CHARTER_FILE
from privacy.audit.egress import EGRESS_FILE, Sent
from privacy.audit.testimony import keys_of
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.charter import rules
from privacy.charter.rules import Proposal, Terms
from privacy.dp.plan import SitePlan
from privacy.errors import ConfigError, FederationError
from privacy.secagg.context import Roster
from privacy.secagg.encoding import is_site_id
from privacy.store.application import application_digest
from privacy.store.log import Record, ledger_head
from privacy.store.run_folder import METRICS_FILE, RUN_FILE, RunFolder, read_file, read_text, to_toml
from privacy.store.site_folder import SiteFolder
from privacy.toml_document import parse_toml
from server.checkpoints import Checkpoints, Surroundings
from server.closing import Ended, close
from server.conduct import Conducted, Run, Watcher, begin_transcript, conduct, metrics_line
from server.exchange import Timing
from server.rounds import Resumed, RoundRecord
from server.secure import CentralNoise
from server.superlink import node_id, session
from server.witnesses import Witnesses
from strategies.invitation import Invitation, invite, open_invitation, resolve_invited
from strategies.job import Job
from strategies.study import Study, read_study
from strategies.task import SiteId

RUNS_FOLDER = "runs"
INVITATION_FILE = "invitation.json"
SOCKET = Path("control") / "flower.sock"
_FILES = (METRICS_FILE, TRANSCRIPT_FILE)
_TOLD = {"status", "started", "run", "strategy", "sites", "privacy", "pid"}  # what commands take from run.toml

Report = Callable[[str], None]


@dataclass(frozen=True)
class Coordinator:
    """The coordinator's folder with what every run takes from it.

    Attributes:
      now: The coordinator's clock, with a time zone.
      report: Takes plain lines for people.
    """

    folder: SiteFolder
    study: Study
    now: Callable[[], datetime]
    report: Report

    @classmethod
    def opened(cls, folder: SiteFolder, now: Callable[[], datetime], report: Report) -> "Coordinator":
        """Reads the folder. Raises: FederationError: Something in it does not hold."""
        where = str(folder.path / folder.server_settings.study)
        folder.log().check()
        return cls(folder, read_study(folder.study, where=where), now, report)

    def log(self, kind: str, content: dict[str, Any]) -> None:
        """Writes an entry into the server's log. Raises: ConfigError: It cannot: then nothing goes on."""
        self.folder.log().append([Record(kind, content)], self.folder.identity)

    def invite(self, job: Job, *, run: str, purpose: str, asset: str) -> Invitation:
        """Returns the invitation to a job that the charter allows.

        What the noise in the sites' own steps is, each site knows and its own gate checks; here the charter's least
        stands in its place.

        Raises: CharterRefusalError: The charter does not allow it; that is on record.
        """
        charter = self.folder.charter
        invitation = invite(
            job,
            federation=charter.federation,
            run=run,
            charter=charter.digest,
            application=application_digest(),
            study=self.study.digest,
            purpose=purpose,
            asset=asset,
        )
        decision = {"run": run, "strategy": job.strategy, "study": self.study.digest, "charter": charter.digest}
        try:
            rules.check(charter, self.proposal(invitation, job), self.now())
        except FederationError as error:
            self.log("decision", {**decision, "allowed": False, "reason": str(error)})
            raise
        self.log("decision", {**decision, "allowed": True, "reason": ""})
        return invitation

    def proposal(self, invitation: Invitation, job: Job) -> Proposal:
        """Returns what the charter is asked, as far as the coordinator can know it."""
        central = (job.sum_plan,) if job.sum_plan is not None else ()
        floors = self.folder.charter.floors
        proposal = invitation.proposal(job, () if isinstance(job.sum_plan, SitePlan) else central, floors)
        if not job.record_privacy:
            return proposal
        allowed = self.folder.charter.privacy.get("record")
        clip = Decimal(repr(job.task.training.clip))
        least = Terms("record", job.epsilon, job.delta, clip, allowed.noise if allowed else Decimal(0))
        return replace(proposal, privacy=(least, *proposal.privacy))

    def begin(self, job: Job, invitation: Invitation) -> RunFolder:
        """Makes the folder of a new run. Raises: ConfigError: It cannot be made."""
        path = self.path_of(invitation.run)
        if path.exists():
            raise ConfigError(
                f"there is a run {invitation.run} already", hint="Choose another --name, or go on: server resume."
            )
        with RunFolder.prepared(path) as folder:
            folder.path.chmod(0o700)
            folder.write(INVITATION_FILE, invitation.signed(self.folder.identity))
            for version in self.folder.charters:
                folder.append(CHARTER_FILE, version.encode())
            begin_transcript(folder, self.keys)
            self._write_status(folder, job, invitation, "begun")
        return folder

    def path_of(self, run: str) -> Path:
        """Returns where a run is kept. Raises: ConfigError: No run may be called that."""
        if not is_site_id(run) or run.startswith("."):
            raise ConfigError(f"{run!r} names no run", hint="1 to 64 of a-z 0-9 . _ -, not beginning with a dot.")
        return self.folder.path / RUNS_FOLDER / run

    @property
    def keys(self) -> Roster:
        """Identity keys of the sites."""
        charter = self.folder.charter
        return Roster(charter.version, keys_of(charter))

    def invited_to(self, run: str) -> tuple[RunFolder, bytes, Job]:
        """Reads a run that was begun.

        Returns: Its folder, the invitation as it is sent, and the job.
        Raises: ConfigError: There is none. VerificationError: It is not ours, or of another study.
        """
        path = self.path_of(run)
        if not (path / INVITATION_FILE).is_file():
            raise ConfigError(f"there is no run {run} in {path.parent}")
        data = read_file(path / INVITATION_FILE, limit=2**20)
        invitation = open_invitation(data, self.folder.identity.public_key)
        return RunFolder(path), data, resolve_invited(self.study, invitation)

    def drive(self, run: str, timing: Timing) -> Conducted:
        """Begins a run's rounds, or goes on with them, and closes it.

        Raises: FederationError: It came to no end; `drive` again goes on where it was.
        """
        folder, data, job = self.invited_to(run)
        invitation = open_invitation(data, self.folder.identity.public_key)
        around = Surroundings(folder.path, _FILES, self._ledger_for(job))
        with (
            self._journal(around, job, run) as (journal, resumed),
            self._status(folder, job, invitation),
            session(self.folder.path / SOCKET) as (grid, number),
        ):
            self.log("run-started", {"run": run, "resumed": resumed is not None})
            self.report(f"run {run}, Flower's number {number}")
            done = conduct(
                grid,
                self._run(folder, data, invitation, job, timing),
                folder,
                _Watcher(self, folder, job),
                clock=time.monotonic,
                sleep=time.sleep,
                journal=journal,
                resumed=resumed,
            )
            self._close(folder, job, invitation, done)
            if done.stopped:
                self._write_status(folder, job, invitation, "stopped")
        return done

    @contextmanager
    def _journal(self, around: Surroundings, job: Job, run: str) -> Iterator[tuple[Checkpoints, Resumed | None]]:
        if (around.folder / "checkpoint.db").exists():
            with Checkpoints.open(around, job=job.digest) as journal:
                yield journal, journal.resumed(job.algorithm.init(job.initial))
        else:
            with Checkpoints.create(around, job=job.digest, run=run) as journal:
                yield journal, None

    def _ledger_for(self, job: Job) -> Any:
        return self.folder.ledger() if isinstance(job.sum_plan, SitePlan) else None

    def _run(self, folder: RunFolder, data: bytes, invitation: Invitation, job: Job, timing: Timing) -> Run:
        plan = job.sum_plan
        noise = None
        if isinstance(plan, SitePlan):
            noise = CentralNoise(plan, self.folder.ledger(), invitation.asset, invitation.run)
        return Run(
            job,
            invitation.federation,
            invitation.run,
            data,
            self.keys,
            timing,
            noise,
            Witnesses(self.folder.log()),
            lambda site, sent: _received(folder, site, sent),
            invitation.purpose,
            invitation.asset,
            self.folder.charter.floors,
            {SiteId(site.id): node_id(site.flower) for site in self.folder.charter.sites.values() if site.flower},
        )

    def _close(self, folder: RunFolder, job: Job, invitation: Invitation, done: Conducted) -> None:
        log = self.folder.log()
        started, finished = self._started(folder), self.now()
        charter, ledger = self.folder.charter, self._ledger_for(job)
        ended = Ended(folder, self.study, job, invitation, done, charter, log, ledger, started, finished)
        close(ended, self.folder.identity, self.report)
        self.log("run-closed", {"run": folder.path.name, "rounds": len(done.rounds), "stopped": done.stopped})

    def status(self, run: str) -> dict[str, Any]:
        """Returns what ``run.toml`` says; empty before it is written. Raises: ConfigError: It cannot be read."""
        path = self.path_of(run) / RUN_FILE
        if not path.exists():
            return {}
        told = parse_toml(read_text(path), str(path))
        if not told.keys() >= _TOLD:
            raise ConfigError(
                f"{path} does not say how the run stands",
                hint="It was cut or edited. Without it `resume` writes a new one.",
            )
        return told

    def _started(self, folder: RunFolder) -> datetime:
        """Returns when the run was begun, before any resumption."""
        told = self.status(folder.path.name)
        return datetime.fromisoformat(told["started"]) if "started" in told else self.now()

    @contextmanager
    def _status(self, folder: RunFolder, job: Job, invitation: Invitation) -> Iterator[None]:
        """Keeps ``run.toml`` saying how the run stands."""
        self._write_status(folder, job, invitation, "running")
        try:
            yield
        except FederationError:
            self._write_status(folder, job, invitation, "stopped")
            raise
        except BaseException:
            self._write_status(folder, job, invitation, "interrupted")
            raise
        if self.status(invitation.run)["status"] == "running":
            self._write_status(folder, job, invitation, "finished")

    def _write_status(self, folder: RunFolder, job: Job, invitation: Invitation, status: str) -> None:
        told = {
            "status": status,
            "started": self._started(folder).isoformat(),
            "run": invitation.run,
            "federation": invitation.federation,
            "strategy": job.strategy,
            "sites": list(job.sites),
            "privacy": list(job.privacy),
            "epsilon": str(job.epsilon),
            "delta": str(job.delta),
            "seed": job.seed,
            "job": job.digest,
            "study": invitation.study,
            "charter": invitation.charter,
            "application": invitation.application,
            "pid": os.getpid(),
            "parameters": {name: str(value) for name, value in invitation.parameters.items()},
        }
        folder.write(RUN_FILE, to_toml(told))


@dataclass(frozen=True)
class _Watcher(Watcher):
    """Writes the metrics and the log, and tells people."""

    coordinator: Coordinator
    folder: RunFolder
    job: Job

    def step(self, text: str) -> None:
        self.coordinator.report(text)

    def note(self, text: str) -> None:
        self.coordinator.report(text)

    def round(self, record: RoundRecord, _state: Any) -> None:
        self.folder.append(METRICS_FILE, metrics_line(record, None))
        self.coordinator.log("round", {"run": self.folder.path.name, **_plain(record)})
        if isinstance(self.job.sum_plan, SitePlan):
            with self.coordinator.folder.ledger().reading() as books:
                head = ledger_head(books.ledger, books.head)
            self.coordinator.log(head.kind, dict(head.content))
        planned = self.job.task.training.rounds
        for site, reason in record.missing.items():
            self.coordinator.report(f"round {record.round}: without {site}: {reason}")
        ended = "skipped" if record.skipped else f"{len(record.answered)} sites"
        self.coordinator.report(f"round {record.round} of {planned}: {ended}, {record.seconds:.1f} s")


def _plain(record: RoundRecord) -> dict[str, Any]:
    told = asdict(record)
    return {name: told[name] for name in ("round", "attempts", "skipped")} | {"answered": list(record.answered)}


def _received(folder: RunFolder, site: SiteId, sent: Sent) -> None:
    folder.append(EGRESS_FILE, egress.line(site, sent))
