"""The experiment around a run: folder, references, scores, report; the same for every engine.

The harness may look at all rows because this is a simulation. What it computes with them never passes through the app.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid

import privacy
from clients.sites import site_of
from clients.work import plans_of
from privacy.audit import report
from privacy.audit.ledger_chain import LEDGERS_FILE
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.dp.plan import PrivacyPlan, RecordPlan
from privacy.errors import ConfigError, FederationError
from privacy.keys.signing import SigningKey
from privacy.store import report_files
from privacy.store.run_folder import MODEL_FILE, RUN_FILE, RunFolder, to_toml
from server.claims import Placement, PrivacyClaim, Spent
from server.cosigning import cosigned
from server.exchange import Sleep
from server.model_file import model_file
from simulations.accounts import SERVER, Accounts, asset_of, federation_asset, server_plans
from simulations.conduct import Trained, train_over
from simulations.data.datasets import SiteData
from simulations.demo_charter import establish
from simulations.divided import Divided, is_divided, measure_division
from simulations.evidence import predicate
from simulations.identities import Identities
from simulations.job import Job
from simulations.members import PRIVATE_FOLDER, load_member_data
from simulations.options import Options
from simulations.outcome import Outcome
from simulations.pieces import Pieces
from simulations.progress import Observer
from simulations.reference import measure
from strategies.contribution import Vector
from strategies.task import SiteId


class Interrupted(Exception):  # noqa: N818 - not an error: somebody asked for it
    """A person stopped the run; raised where a KeyboardInterrupt would not come through (Flower's server thread)."""


@dataclass
class Experiment:
    """One run from options to report.

    Attributes:
      engine: ``local``, ``ray`` or ``flwr``.
      run_id: As Flower knows it.
    """

    job: Job
    options: Options
    engine: str
    run_id: int
    observer: Observer
    data: Mapping[SiteId, SiteData]
    folder: RunFolder
    accounts: Accounts
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def prepare(
        cls, job: Job, options: Options, path: Path, *, engine: str, run_id: int, observer: Observer
    ) -> "Experiment":
        """Checks everything that can be checked, then makes the run folder; a refusal leaves nothing behind.

        Raises: ConfigError: Data that is not at hand or not as declared, an impossible plan, an unwritable folder.
        """
        if job.chain is not None and engine != "local":
            raise ConfigError(f"the holder of {job.scenario.name}'s piece is a part of this process: --engine local")
        observer.step(f"reading {job.scenario.name}")
        data = load_member_data(job)
        if job.privacy:
            observer.step("calibrating the noise for the whole run")
        sites = [site_of(job, site, data[site].train) for site in job.sites]
        with RunFolder.prepared(path) as folder:
            accounts = Accounts.of(options, folder.path, run_id)
            if job.division.private:
                (folder.path / PRIVATE_FOLDER).mkdir(mode=0o700)
            establish(job, folder, datetime.now(UTC))
            accounts.prepare(job, sites, options)
            experiment = cls(job, options, engine, run_id, observer, data, folder, accounts)
            experiment.write_status("running")
        return experiment

    def run(self, grid: Grid, *, sleep: Sleep = time.sleep) -> Outcome:
        """Trains over the grid, compares, signs and draws the report.

        Args:
          grid: Any Flower grid.
          sleep: Waits; may raise ``Interrupted``.

        Raises: FederationError: The run came to no model. ``run.toml`` then says how it ended.
        """
        with self.ending():
            trained = train_over(
                grid,
                self.job,
                self.folder,
                self.accounts,
                self.observer,
                loss_of=self._loss(),
                sleep=sleep,
            )
            return self.conclude(trained)

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Makes sure that ``run.toml`` says how the run ended and that no identity key stays, whatever ends it."""
        try:
            yield
        except FederationError:
            self.write_status("stopped")
            raise
        except BaseException as error:
            stopped = isinstance(error, KeyboardInterrupt | Interrupted)
            self.write_status("interrupted" if stopped else "failed")
            raise
        finally:
            Identities(self.folder.path).erase()

    def conclude(self, trained: Trained) -> Outcome:
        """Scores the delivered model beside its references and writes model, report and page."""
        self.observer.step("training the models to compare with")
        pieces = Pieces.of_run(self.job, trained.model, self.folder.path)
        reference = measure(self.job, self.data, pieces)
        outcome = Outcome(
            job=self.job,
            engine=self.engine,
            run_id=str(self.run_id),
            folder=str(self.folder.path),
            started=self.started,
            finished=datetime.now(UTC),
            trained=trained,
            data=self.data,
            reference=reference,
            claims=self.claims(),
            together={site: pieces.score(site, self.data[site].test) for site in self.job.sites},
            divided=self._divided(pieces, trained),
        )
        self.observer.step("signing the report")
        self._write_report(outcome)
        self.write_status(outcome.status)
        return outcome

    def claims(self) -> tuple[PrivacyClaim, ...]:
        """Returns what the ledgers say that this run has paid for, claim by claim."""
        held: dict[tuple[Placement, str], dict[str, Spent]] = {}
        for site in self.job.sites:
            for plan in plans_of(site_of(self.job, site, self.data[site].train)):
                placement: Placement = "local" if isinstance(plan, RecordPlan) else "distributed"
                self._enter(held.setdefault((placement, plan.claim), {}), site, asset_of(self.job, site), plan)
        for plan in server_plans(self.job):
            self._enter(held.setdefault(("central", plan.claim), {}), SERVER, federation_asset(self.job), plan)
        return tuple(PrivacyClaim(placement, spent) for (placement, _), spent in held.items() if spent)

    def _enter(self, spent: dict[str, Spent], holder: str, asset: str, plan: PrivacyPlan) -> None:
        if events := self.accounts.events(holder, plan.claim):
            spent[holder] = Spent(plan, events, self.accounts.lifetime(holder, asset, plan.claim))

    def _divided(self, pieces: Pieces, trained: Trained) -> Divided | None:
        if not is_divided(self.job):
            return None
        return measure_division(self.job, self.data, pieces, [record for record, _ in trained.rounds])

    def _loss(self) -> Callable[[Vector], float]:
        rows = {site: self.data[site].train for site in self.job.sites}
        sizes = [float(len(records)) for records in rows.values()]

        def loss(model: Vector) -> float:
            pieces = Pieces.of_run(self.job, model, self.folder.path)
            return float(np.average([pieces.loss(site, records) for site, records in rows.items()], weights=sizes))

        return loss

    def _write_report(self, outcome: Outcome) -> None:
        model = model_file(self.job, outcome.trained.model)
        digest = sha256(model).hexdigest()
        self.folder.write(MODEL_FILE, model)
        ledgers = b"".join(self.accounts.entries({holder for claim in outcome.claims for holder in claim.spent}))
        if ledgers:
            self.folder.write(LEDGERS_FILE, ledgers)
        # The key lives for this one signature and is never written; whoever wants authenticity pins its public half.
        key = SigningKey(secrets.token_bytes(32))
        signed_rounds = self.folder.read(TRANSCRIPT_FILE) if self.job.secagg else None
        body = predicate(
            outcome,
            model_sha256=digest,
            signer=report.signer_entry(key),
            cosigners=Identities(self.folder.path).roster.keys,
            transcript=signed_rounds,
            ledgers=ledgers,
        )
        signed, trained = report.sign(body, digest, key), outcome.trained
        signed = cosigned(trained.exchange, signed, group=str(len(trained.rounds) + 1), note=self.observer.note)
        report_files.write(self.folder, signed)

    def write_status(self, status: str) -> None:
        """Writes ``run.toml``: everything resolved, seeds, versions, and how the run stands."""
        job, training = self.job, self.job.task.training
        now = datetime.now(UTC).isoformat(timespec="seconds")
        sections: dict[str, Any] = {
            "schema": "collegium/run/v1",
            "status": status,
            "run_id": str(self.run_id),
            "engine": self.engine,
            "started": self.started.isoformat(timespec="seconds"),
            "written": now,
            "job": job.digest,
            "options": self.options.to_run_config(),
            "training": {
                "strategy": job.strategy,
                "sites": list(job.sites),
                "seed": job.seed,
                "deadline": job.deadline,
                **{name: value for name, value in vars(training).items() if isinstance(value, int | float | str)},
                **{f"strategy_{name}": value for name, value in vars(job.algorithm).items()},
            },
            "versions": _versions(),
        }
        for claim in self.claims():
            for holder, spent in claim.spent.items():
                said = {"executions": spent.executions, "epsilon_at_most": f"{spent.epsilon():.6f}"}
                sections[f"spent-{holder}-{spent.plan.claim}"] = said
        self.folder.write(RUN_FILE, to_toml(sections))
        self.folder.append("log/events.jsonl", {"time": now, "status": status})


def _versions() -> dict[str, str]:
    found = {"collegium": privacy.__version__}
    for name in ("flwr", "torch", "opacus", "dp-accounting", "cryptography", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found
