"""``collegium federation``: what officers do with a charter: draft it, sign it, read it; and the digests in it."""

import base64
import importlib
import json
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from privacy.charter.document import MAX_BYTES, Charter
from privacy.charter.draft import from_draft
from privacy.charter.signatures import MAX_FILE_BYTES, SignedCharter, decode, missing, signers, verify_chain
from privacy.charter.words import changes, lines
from privacy.enrolment.bundle import MAX_BUNDLE_BYTES
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SEED_BYTES, SigningKey
from privacy.store import key_files
from privacy.store.application import application_digest
from privacy.store.run_folder import read_file, read_text

federation = typer.Typer(name="federation", no_args_is_help=True, add_completion=False)

_Charter = Annotated[Path, typer.Argument(show_default=False, help="A charter file.")]
_Previous = Annotated[
    list[Path] | None, typer.Option(help="A version before; give them all, the first one first.", show_default=False)
]


@federation.callback()
def overview() -> None:
    """Agree on a charter: who takes part, what may run, under which protection."""


@federation.command("key")
def key(out: Annotated[Path, typer.Option(help="Where to write it, in a folder that only you can enter.")]) -> None:
    """Make an officer's key in a new file, and print what goes into the draft."""
    made = SigningKey(seed := secrets.token_bytes(SEED_BYTES))
    if not out.parent.exists():
        with key_files.new_folder(out.parent):
            pass
    key_files.write_new(out, seed)
    typer.echo(f'key = "{base64.b64encode(made.public_key).decode()}"')
    typer.echo(f"key id {made.keyid}", err=True)
    typer.echo(f"{out} is secret: it never leaves you, and no copy of it is anywhere.", err=True)


@federation.command("init")
def init(
    draft: Annotated[Path, typer.Argument(show_default=False, help="The draft, in TOML.")],
    out: Annotated[Path, typer.Option(help="Where to write the charter; must not exist.")],
    previous: _Previous = None,
) -> None:
    """Make a charter that nobody has signed from DRAFT, and print its digest.

    An entry of the draft may name an enrolment file, whose place is told from the draft's folder.
    """
    charter = from_draft(
        read_text(draft, limit=MAX_BYTES), _adopted(previous), read=lambda name: _enrolment(draft.parent / name)
    )
    _write(out, SignedCharter(charter, {}).encode(), replace=False)
    typer.echo(charter.digest)
    typer.echo(f"{out}: version {charter.version}, {charter.signatures} officers must sign it.", err=True)


@federation.command("sign")
def sign(
    charter: _Charter,
    key: Annotated[Path, typer.Option(help="Your key, as `collegium federation key` made it.")],
    digest: Annotated[
        str | None, typer.Option(help="The digest that you read with `show`; sign nothing else.", show_default=False)
    ] = None,
    previous: _Previous = None,
) -> None:
    """Add your signature to CHARTER; read it with `show` before."""
    signed = _read(charter)
    if digest is not None and signed.charter.digest != digest:
        raise VerificationError(f"{charter} is another charter, digest {signed.charter.digest}; nothing was signed")
    before = _adopted(previous)
    missing(signed, before)  # nobody signs beside a forged signature, or what does not continue the version before
    pen = key_files.read_pen(key)
    officers = (*signed.charter.officers, *(() if before is None else before.officers))
    name = next((officer.name for officer in officers if officer.keyid == pen.keyid), None)
    if name is None:
        raise ConfigError(
            f"{key} is the key of no officer that {charter} names",
            hint="An officer of the version before only must name that file with --previous.",
        )
    if pen.keyid in signed.signatures:
        typer.echo(f"{name} has signed {charter} already; nothing was changed.")
        return
    signed = signed.signed_by(pen)
    _write(charter, signed.encode(), replace=True)
    typer.echo(f"{name} signed version {signed.charter.version}, digest {signed.charter.digest}.")
    for line in missing(signed, before):
        typer.echo(f"Missing: {line}.")


@federation.command("show")
def show(
    charter: _Charter,
    previous: _Previous = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what CHARTER allows, whose signatures hold, and what is missing.

    Exit code 0 if it is adopted, 3 if something is missing, 1 if a signature is wrong or it does not continue the
    version before.
    """
    signed = _read(charter)
    before = _adopted(previous)
    lacks = missing(signed, before)
    names = [officer.name for officer in signers(signed, before)]
    if as_json:
        told: dict[str, Any] = {"charter": dict(signed.charter.body), "digest": signed.charter.digest}
        told |= {"adopted": not lacks, "signed_by": names, "missing": lacks}
        typer.echo(json.dumps(told, indent=2, ensure_ascii=False))
    else:
        changed = [] if before is None else [f"Since version {before.version}:", *changes(before, signed.charter)]
        for line in [*lines(signed.charter), *changed, *_standing(signed, names, lacks)]:
            typer.echo(line)
    raise typer.Exit(3 if lacks else 0)


@federation.command("application")
def application() -> None:
    """Print the digest of the application that is installed here."""
    typer.echo(application_digest())


@federation.command("study")
def study(file: Annotated[Path, typer.Argument(show_default=False, help="A study, in TOML.")]) -> None:
    """Print the digest of a study: what a charter approves to be learnt."""
    # By name: this package imports no other one of ours.
    read_study = importlib.import_module("strategies.study").read_study
    typer.echo(read_study(read_text(file, limit=MAX_BYTES), where=str(file)).digest)


def _standing(signed: SignedCharter, names: list[str], lacks: list[str]) -> list[str]:
    return [
        f"Signatures that hold: {', '.join(names) or 'none'}",
        *(f"Missing: {line}" for line in lacks),
        *([] if lacks else [f"Version {signed.charter.version} is adopted."]),
    ]


def _read(path: Path) -> SignedCharter:
    try:
        return decode(read_file(path, limit=MAX_FILE_BYTES))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", hint=error.hint) if str(path) not in str(error) else error from None


def _adopted(previous: list[Path] | None) -> Charter | None:
    """Reads all versions before and returns the last, or nothing where there is none."""
    return verify_chain([_read(path) for path in previous]) if previous else None


def _enrolment(path: Path) -> bytes:
    """Reads a file that somebody else's draft names: a device would have no end."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a file")
    return read_file(path, limit=MAX_BUNDLE_BYTES)


def _write(path: Path, data: bytes, *, replace: bool) -> None:
    """Writes a public file whole; only ``replace`` may take the place of one that exists."""
    draft: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o644)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if replace:
            draft.replace(path)
        else:
            path.hardlink_to(draft)  # unlike a rename it fails where the name is taken
    except FileExistsError:
        raise ConfigError(f"{path} exists", hint="Charters are never overwritten: choose another --out.") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if draft is not None:
            with suppress(OSError):
                draft.unlink()
