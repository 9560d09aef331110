"""The ``collegium`` command. Sub-commands are mounted by name and imported when used, so ``verify`` needs no torch.

Exit codes: 0 done and all holds; 1 a claim fails or a request was refused; 2 unusable input; 3 no verdict; 4 stopped on
purpose (budget, quorum) with everything done so far kept; 130 interrupted; 141 nobody reads the output any more.
"""

import hashlib
import importlib
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import click
import typer

import privacy
from privacy.audit import annex, envelope, statement
from privacy.audit.approval import CHARTER_FILE
from privacy.audit.canary_file import CANARIES_FILE
from privacy.audit.canonical import MAX_BYTES
from privacy.audit.html import page
from privacy.audit.ledger_chain import LEDGERS_FILE
from privacy.audit.site_statement import STATEMENTS_FILE
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.audit.verify import Verdict, failure
from privacy.audit.verify import verify as verify_report
from privacy.errors import (
    BudgetExhaustedError,
    ConfigError,
    FederationError,
    PrivacyError,
    QuorumError,
    VerificationError,
)
from privacy.keys.signing import SigningKey, parse_trust
from privacy.store import report_files
from privacy.store.evidence_files import AtHand
from privacy.store.key_files import read_pen
from privacy.store.run_folder import PAGE_FILE, REPORT_FILE, TRUST_FILE, RunFolder, read_file, read_text

_LAZY = {
    "simulate": ("simulations.command", "Run a scenario: train together, compare, sign a report."),
    "scenarios": ("simulations.command", "List scenarios and whether their data is at hand."),
    "audit": ("simulations.audit.command", "Attack a run, measure, and sign what comes out into a new report."),
    "plan": ("simulations.planning.command", "Analyse a model and propose who holds which part."),
    "federation": ("privacy.store.federation", "Agree on a charter: draft, sign, show."),
    "stage": ("clients.chain.serve_command", "Serve a stage of a chain to other agents."),
    "serve": ("clients.joint.command", "Answer the site's own people, and together with the other agents."),
    "predict": ("clients.joint.command", "Ask for the classes of rows: one model, or all agents together."),
    "site": ("privacy.store.command", "Look after a site: its keys, its privacy budget, its log."),
    "server": ("server.command", "Coordinate: let the sites in, run a strategy, go on after a crash."),
    "ca": ("privacy.store.ca_command", "Keep a federation's root: issue and renew certificates."),
}
_QUIET = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")
_INTERRUPTED = 130
_UNREAD = 141
_EXTRAS = "This command needs more packages. In the source's folder: pip install -c constraints.txt '.[simulate]'."


def verify(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    report: Annotated[Path, typer.Argument(show_default=False)],
    trust: Annotated[
        Path | None,
        typer.Option(help="File of trusted keys, one base64 public key a line; `cosigner` or `auditor` after it."),
    ] = None,
    threshold: Annotated[int, typer.Option(help="How many of the trusted keys must have signed.")] = 1,
    self_signed: Annotated[
        bool, typer.Option("--self", help="Accept the keys inside the report: shows integrity, not who signed.")
    ] = False,
    model: Annotated[
        Path | None, typer.Option(help="The model file; by default model.safetensors beside the report.")
    ] = None,
    transcript: Annotated[
        Path | None, typer.Option(help=f"What the sites signed; by default {TRANSCRIPT_FILE} beside the report.")
    ] = None,
    charters: Annotated[
        Path | None, typer.Option(help=f"The charter, all versions; by default {CHARTER_FILE} beside the report.")
    ] = None,
    statements: Annotated[
        Path | None, typer.Option(help=f"What each site states; by default {STATEMENTS_FILE} beside the report.")
    ] = None,
    ledgers: Annotated[
        Path | None, typer.Option(help=f"The budget ledgers; by default {LEDGERS_FILE} beside the report.")
    ] = None,
    canaries: Annotated[
        Path | None, typer.Option(help=f"What an audit measured; by default {CANARIES_FILE} beside the report.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check every claim of REPORT (report.dsse.json or report.html) offline, a line a claim."""
    named = {"model": model, "transcript": transcript, "charters": charters, "statements": statements}
    try:
        verdict = _verified(report, trust, {**named, "ledgers": ledgers, "canaries": canaries}, threshold, self_signed)
    except FederationError as error:
        if as_json:
            typer.echo(json.dumps(failure(error), indent=2))
        raise
    if as_json:
        typer.echo(json.dumps(verdict.to_json(), indent=2))
    else:
        for line in verdict.lines():
            typer.echo(line)
    raise typer.Exit(verdict.exit_code)


def _verified(
    report: Path, trust: Path | None, named: Mapping[str, Path | None], threshold: int, self_signed: bool
) -> Verdict:
    keys = None if trust is None else parse_trust(read_text(trust, limit=MAX_BYTES))
    return verify_report(
        read_file(report, limit=MAX_BYTES),
        trusted=None if keys is None else keys.signers,
        cosigners=() if keys is None else keys.cosigners,
        auditors=() if keys is None else keys.auditors,
        self_signed=self_signed,
        threshold=threshold,
        progress=_to_stderr,
        **vars(AtHand.beside(report, named)),
    )


def report(
    run: Annotated[Path, typer.Argument(show_default=False)],
    countersign: Annotated[
        Path | None, typer.Option(help="Add the signature of this key, as `collegium federation key` made it.")
    ] = None,
    dpia: Annotated[
        Path | None, typer.Option(help="Write the annex to a data-protection impact assessment, in Markdown.")
    ] = None,
) -> None:
    """Draw the report of the run folder RUN again, from its signed envelope.

    Before anything is signed or written of its content, every claim is checked as `collegium verify` checks it.
    """
    folder = RunFolder(run)
    signed = folder.read(REPORT_FILE)
    pen = None if countersign is None else read_pen(countersign)
    if pen is not None or dpia is not None:
        _check_holds(folder, signed, pen)
    if pen is not None:
        signed = envelope.add(signed, pen)
        report_files.countersigned(folder, signed, pen.public_key)
        typer.echo(f"signed by key {pen.keyid}; whoever verifies must trust it: it is now in {run / TRUST_FILE}")
    typer.echo(f"drawn again: {folder.write(PAGE_FILE, page.render(signed))}")
    if dpia is not None:
        told = statement.decode(envelope.decode(signed).payload)
        text = annex.dpia(told, hashlib.sha256(signed).hexdigest())
        RunFolder(dpia.parent).write(dpia.name, text.encode())
        typer.echo(f"written: {dpia}")


def _check_holds(folder: RunFolder, signed: bytes, pen: SigningKey | None) -> None:
    """Refuses a report in which a claim fails under the keys of its own folder; says what stays unchecked."""
    trust = parse_trust(read_text(folder.path / TRUST_FILE))
    cosigners = trust.cosigners if pen is None else {*trust.cosigners, pen.public_key}
    at_hand = AtHand.beside(folder.path / REPORT_FILE)
    verdict = verify_report(signed, trusted=trust.signers, cosigners=cosigners, progress=_to_stderr, **vars(at_hand))
    for claim in verdict.claims:
        if claim.verdict == "fails":
            raise VerificationError(f"{claim.id} does not hold, so nothing was signed or written: {claim.why}")
        if claim.verdict == "unchecked":
            _to_stderr(f"unchecked: {claim.id}: {claim.why}")


class _Commands(typer.core.TyperGroup):
    """Commands of this package at once, those of the others on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*_LAZY, *super().list_commands(ctx)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        if ctx.resilient_parsing or "--help" in sys.argv[1:2]:
            return click.Command(cmd_name, help=_LAZY[cmd_name][1])  # the overview must not load torch
        return _command(_load(cmd_name), cmd_name)


def _load(name: str) -> Callable[..., None] | typer.Typer:
    for variable in _QUIET:  # Flower and Ray read these once, when they are imported
        os.environ.setdefault(variable, "0")
    os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
    try:
        function: Callable[..., None] | typer.Typer = getattr(importlib.import_module(_LAZY[name][0]), name)
    except ModuleNotFoundError as error:
        raise ConfigError(f"collegium {name} cannot start: {error.name} is not installed", hint=_EXTRAS) from error
    return function


def _command(function: Callable[..., None] | typer.Typer, name: str) -> click.Command:
    if isinstance(function, typer.Typer):
        single = function
    else:
        single = typer.Typer(add_completion=False)
        single.command(name)(function)
    command = typer.main.get_command(single)
    command.name = name
    return command


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"collegium {privacy.__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.command("verify")(verify)
app.command("report")(report)


@app.callback()
def overview(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Organisations that may not show each other their data train together."""
    del version


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; every error that a person can cause ends in one or two plain lines."""
    # dp-accounting says which Rényi orders it skipped; the bound it returns is right without them.
    logging.getLogger("absl").setLevel(logging.ERROR)
    code = _outcome(arguments)
    if any(thread.daemon and thread is not threading.current_thread() for thread in threading.enumerate()):
        # A site that hangs leaves its thread behind, and an interpreter that shuts down under a thread inside torch
        # aborts the process: leave at once, everything is on disk.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _outcome(arguments: list[str] | None) -> int:
    try:
        code = app(arguments, standalone_mode=False) or 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except (click.ClickException, FederationError) as error:
        return _failed(error)
    except (KeyboardInterrupt, click.Abort):
        code = _INTERRUPTED
    except SystemExit:  # only typer leaves this way: whoever read the output has closed it, as `head` does
        return _UNREAD
    except OSError as error:
        return _unwritten(error)
    if code == _INTERRUPTED:  # typer turns an interrupt into this code without a word
        typer.echo("interrupted; what was done and spent so far is kept", err=True)
    return int(code)


def _unwritten(error: OSError) -> int:
    """Says that the disk or the output is full, and keeps the interpreter from saying it again when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _failed(
        ConfigError(f"{error.filename or 'the output'} cannot be written or read: {error.strerror or error}")
    )


def _failed(error: click.ClickException | FederationError) -> int:
    if isinstance(error, FederationError):
        lines, code = error.lines(), _exit_code(error)
    else:
        hint = [] if isinstance(error, click.exceptions.NoArgsIsHelpError) else ["See: collegium --help."]
        lines, code = [error.format_message(), *hint], 2
    for line in lines:
        typer.echo(line, err=True)
    return code


def _exit_code(error: FederationError) -> int:
    if isinstance(error, VerificationError):
        return 1
    if isinstance(error, QuorumError | BudgetExhaustedError):
        return 4
    return 1 if isinstance(error, PrivacyError) else 2


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)
