"""Tries a member: makes its run, then does what anybody would, verify and audit; neither knows which member it is."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, assert_never

from clients.conformance import check_release_paths
from clients.one_run import audit_path
from clients.sites import site_of
from privacy.audit import report
from privacy.audit.attack_claims import one_run_claim
from privacy.audit.plans import plan_of
from privacy.audit.verify import Verdict
from privacy.errors import FederationError
from privacy.keys.signing import SEED_BYTES, SigningKey, parse_public_keys
from privacy.store.run_folder import REPORT_FILE, TRUST_FILE, RunFolder
from server.rounds import RoundRecord
from simulations.audit.measure import Settings, measure
from simulations.audit.subject import Subject
from simulations.engines import run_local
from simulations.harness import Experiment
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.outcome import Outcome as Ran
from simulations.red.member import Accepted, BentAudit, BentReport, BrokenRun, Member, Outcome, Refused, Rejected
from simulations.red.papers import Papers, evidence_in, verified
from simulations.red.patching import swapped

ROUNDS = 2
_FEW_CANARIES = 1024
_MODEL_PARAMETERS = 1  # matters to noise in shares only, and the kit's runs have none


class Trials:
    """A series of trials; honest runs that members bend the reports of are made once."""

    def __init__(self, place: Path, settings: Settings | None = None) -> None:
        """Takes an empty folder, and how much the audit measures; by default, what the command does."""
        self._place, self._settings = place, settings or Settings(4096, 400)
        self._honest: dict[str, Path] = {}

    def run(self, member: Member) -> Outcome:
        """Returns who found a member, or that nobody did."""
        match member:
            case Refused():
                return _asked(member, self._new())
            case BentReport():
                return _bent(member, self.honest(member.options))
            case BentAudit():
                return _bent_audit(member, self.honest({}))
            case BrokenRun():
                return _broken(member, self._new() / "run", self._settings)
            case _:
                assert_never(member)

    def honest(self, options: Mapping[str, Any]) -> Path:
        """Returns the folder of an honest run with these options in place of the kit's own."""
        key = repr(sorted(options.items()))
        if key not in self._honest:
            self._honest[key] = self._new() / "run"
            make_run(self._honest[key], options)
        return self._honest[key]

    def audit(self, folder: Path) -> Outcome:
        """Audits a run, as the command does."""
        return _audited(folder, self._settings)

    def _new(self) -> Path:
        made = self._place / str(len(list(self._place.iterdir())))
        made.mkdir()
        return made


def make_run(place: Path, options: Mapping[str, Any]) -> Ran:
    """Makes the kit's ordinary run, with these options in place of its own; raises as a run."""
    wanted = _options({**options, "out": str(place)})
    job = resolve(wanted)

    def prepare(run_id: int) -> Experiment:
        return Experiment.prepare(job, wanted, place, engine="local", run_id=run_id, observer=Nobody())

    return run_local(prepare)


def _options(options: Mapping[str, Any]) -> Options:
    return Options(**{"scenario": "hospitals", "rounds": ROUNDS, **options})


def _asked(member: Refused, place: Path) -> Outcome:
    try:
        member.ask(place)
    except FederationError as error:
        return Rejected("site", str(error))
    return Accepted()


def _bent(member: BentReport, folder: Path) -> Outcome:
    papers, key = Papers.of(folder), SigningKey(secrets.token_bytes(SEED_BYTES))
    at_hand = papers.model_sha256
    try:
        member.bend(papers)
        return _judged(verified(papers.signed(key), {key.public_key}, at_hand, papers.files))
    except FederationError as error:
        return Rejected("verify", str(error))


def _bent_audit(member: BentAudit, folder: Path) -> Outcome:
    subject, key = Subject.of(RunFolder(folder)), SigningKey(secrets.token_bytes(SEED_BYTES))
    plan, seed = plan_of(subject.report.epsilons[0], _MODEL_PARAMETERS), secrets.token_bytes(SEED_BYTES)
    path = audit_path(plan, seed=seed, entropy=secrets.token_bytes, canaries=_FEW_CANARIES)
    found = member.bend(one_run_claim([path], seed=seed))
    try:
        signed = report.audited(subject.signed, [found.claim], key, datetime.now(UTC))
        files = {**evidence_in(folder), "canaries": found.lines}
        digest, auditors = Papers.of(folder).model_sha256, {key.public_key}
        return _judged(verified(signed, _listed(folder), digest, files, auditors=auditors))
    except FederationError as error:
        return Rejected("verify", str(error))


def _broken(member: BrokenRun, folder: Path, settings: Settings) -> Outcome:
    with ExitStack() as stack:
        if member.silenced:
            stack.enter_context(_silenced(member.options))
        stack.enter_context(member.apply())
        try:
            ran = make_run(folder, member.options)
        except FederationError as error:
            return _refusal(error.hint or str(error))
        doubts = [*ran.trained.roster.absent.values(), *_missing(ran)]
        if doubts:
            return _refusal(doubts[0])
        papers, signed = Papers.of(folder), (folder / REPORT_FILE).read_bytes()
        found = _judged(verified(signed, _listed(folder), papers.model_sha256, papers.files))
        return found if isinstance(found, Rejected) else _audited(folder, settings)


def _missing(ran: Ran) -> Iterator[str]:
    yield from (reason for record, _loss in ran.trained.rounds for reason in record.missing.values())


def _refusal(why: str) -> Rejected:
    """Says who refused, by the words of the refusal; one site's words stand for those of all."""
    why = why.partition(";")[0]
    if "takes no part: its" in why:
        return Rejected("conformance", why)
    return Rejected("server" if "contradicts itself" in why else "site", why)


def _judged(verdict: Verdict) -> Outcome:
    wrong = [claim for claim in verdict.claims if claim.verdict == "fails"]
    return Rejected("verify", f"{wrong[0].id}: {wrong[0].why}") if wrong else Accepted()


def _audited(folder: Path, settings: Settings) -> Outcome:
    subject, key = Subject.of(RunFolder(folder)), SigningKey(secrets.token_bytes(SEED_BYTES))
    try:
        found = measure(subject, settings, lambda _line: None)
    except FederationError as error:
        return _refusal(str(error))
    signed = report.audited(subject.signed, found.claims, key, datetime.now(UTC))
    papers = Papers.of(folder)
    files = {**evidence_in(folder), "canaries": found.scores}
    outcome = _judged(verified(signed, _listed(folder), papers.model_sha256, files, auditors={key.public_key}))
    return replace(outcome, by="audit") if isinstance(outcome, Rejected) else outcome


def _listed(folder: Path) -> frozenset[bytes]:
    return parse_public_keys((folder / TRUST_FILE).read_text(encoding="utf-8"))


@contextmanager
def _silenced(options: Mapping[str, Any]) -> Iterator[None]:
    """Makes every site say what correct code would find of its release paths."""
    job: Job = resolve(_options(options))
    data = load_member_data(job)
    said = {site: check_release_paths(site_of(job, site, data[site].train), secrets.token_bytes) for site in job.sites}
    with swapped(check_release_paths, lambda site, _entropy: said[site.id]):
        yield


class Nobody:
    """Watches no run."""

    def step(self, text: str) -> None:
        """Says nothing."""

    def note(self, text: str) -> None:
        """Says nothing."""

    def round(self, record: RoundRecord, planned: int, loss: float) -> None:
        """Says nothing."""
