"""``collegium audit``: attack a run, measure what comes out, and sign it into a new report around the run's own."""

import json
import secrets
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from privacy.audit import report
from privacy.audit.canary_file import CANARIES_FILE
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.errors import ConfigError
from privacy.keys.signing import SEED_BYTES, SigningKey
from privacy.store.evidence_files import AtHand
from privacy.store.key_files import read_pen
from privacy.store.run_folder import REPORT_FILE, RunFolder
from simulations.audit.measure import Measured, Settings, measure
from simulations.audit.subject import Subject

AUDIT_FILE = "audit.dsse.json"
AUDIT_PAGE_FILE = "audit.html"
AUDIT_TRUST_FILE = "audit-trusted-keys.txt"


def audit(
    run: Annotated[Path | None, typer.Argument(show_default=False)] = None,
    canaries: Annotated[int, typer.Option(help="Of the one-run audit: more show more.", min=100, max=4096)] = 4096,
    planted: Annotated[
        int, typer.Option(help="Mislabelled records that a copy of the training gets, at most.", min=50, max=4096)
    ] = 400,
    key: Annotated[
        Path | None,
        typer.Option(
            help="The auditor's key, as from collegium federation key; by default one that is made for this audit."
        ),
    ] = None,
    red: Annotated[bool, typer.Option("--red", help="Break runs on purpose and show what finds each.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")] = False,
) -> None:
    """Attack the run in folder RUN and write what was measured, signed: audit.dsse.json and audit.html beside it."""
    if red:
        raise typer.Exit(_red(as_json=as_json))
    if run is None:
        raise ConfigError("collegium audit takes a run folder", hint="Or --red, which makes its own runs.")
    signing = SigningKey(secrets.token_bytes(SEED_BYTES)) if key is None else read_pen(key)
    folder = RunFolder(run.absolute())
    subject = Subject.of(folder)
    _refuse_what_does_not_hold(_checked(subject.signed, _beside(folder)))
    found = measure(subject, Settings(canaries, planted), lambda line: _noted(folder, line))
    verdict = _written(folder, subject, found, signing)
    if as_json:
        sys.stdout.write(json.dumps(verdict.to_json(), indent=2) + "\n")
    else:
        _show(verdict, found, folder)
    raise typer.Exit(verdict.exit_code)


def _noted(folder: RunFolder, line: str) -> None:
    """Says a line and keeps it in the run's log: what was committed to is on disk before anything is measured."""
    typer.echo(line, err=True)
    folder.append("log/events.jsonl", {"time": datetime.now(UTC).isoformat(timespec="seconds"), "audit": line})


def _checked(signed: bytes, at_hand: AtHand) -> Verdict:
    """Verifies a report by the keys that it lists: whose they are is for its readers to say."""
    return verify(signed, self_signed=True, **vars(at_hand))


def _refuse_what_does_not_hold(verdict: Verdict) -> None:
    failing = [claim for claim in verdict.claims if claim.verdict == "fails"]
    if failing:
        raise ConfigError(
            f"the run's own report does not hold: {failing[0].id}: {failing[0].why}",
            hint="See collegium verify; an audit is added to a report that holds, or to none.",
        )


def _written(folder: RunFolder, subject: Subject, found: Measured, key: SigningKey) -> Verdict:
    """Signs, checks with our own verifier, and only then writes: scores, keys, page and report.

    Whenever it is cut off, no report lies beside another audit's scores: an earlier one goes first, ours comes last.
    """
    signed = report.audited(subject.signed, found.claims, key, datetime.now(UTC))
    verdict = _checked(signed, replace(_beside(folder), canaries=found.scores))
    files = {
        CANARIES_FILE: found.scores,
        AUDIT_TRUST_FILE: report.trusted_keys(signed),
        AUDIT_PAGE_FILE: page.render(signed),
        AUDIT_FILE: signed,
    }
    for name in (AUDIT_FILE, AUDIT_PAGE_FILE, AUDIT_TRUST_FILE):
        folder.remove(name)
    for name, data in files.items():
        folder.write(name, data)
    return verdict


def _beside(folder: RunFolder) -> AtHand:
    return AtHand.beside(folder.path / REPORT_FILE)


def _show(verdict: Verdict, found: Measured, folder: RunFolder) -> None:
    for line in verdict.lines():
        typer.echo(line)
    for line in found.left_out:
        typer.echo(f"not measured: {line}")
    typer.echo(f"signed: {folder.path / AUDIT_FILE}")
    typer.echo(f"to read: {folder.path / AUDIT_PAGE_FILE}")


def _red(*, as_json: bool) -> int:
    from simulations.red.command import show  # noqa: PLC0415 - it patches what it imports, so it comes alone

    return show(as_json=as_json)
