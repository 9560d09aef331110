"""``collegium site log``: what is in a transparency log, whether it is what was signed, and proofs to hand out."""

import json
from pathlib import Path
from typing import Annotated

import typer

from privacy.audit.checkpoint import MAX_NOTE_BYTES, NoteKey, open_checkpoint
from privacy.store.log import Log
from privacy.store.run_folder import read_file

log = typer.Typer(name="log", no_args_is_help=True, add_completion=False)

_File = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]
_Key = Annotated[
    str | None, typer.Option(help="The log's verifier key; without it the file shows that it is whole, not whose.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@log.callback()
def overview() -> None:
    """Read and check a transparency log."""


@log.command("show")
def show(
    file: _File,
    start: Annotated[int, typer.Option("--from", min=0, help="First entry to show.")] = 0,
    key: _Key = None,
    as_json: _Json = False,
) -> None:
    """Show the entries of the log FILE.

    Exit code 1 if they are not those that were signed.
    """
    opened = Log(file, _parse(key))
    entries = opened.entries(start)
    if as_json:
        told = [{"seq": one.seq, "kind": one.record.kind, "content": one.record.content} for one in entries]
        typer.echo(json.dumps({**_statement(opened), "entries": told}, indent=2))
        return
    _tell(opened, file)
    for one in entries:
        typer.echo(f"{one.seq} {one.record.kind} {json.dumps(one.record.content, sort_keys=True)}")


@log.command("check")
def check(
    file: _File,
    key: _Key = None,
    against: Annotated[
        list[Path] | None, typer.Option(help="A checkpoint that somebody else kept; may be given again.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Derive everything in the log FILE again, and compare with checkpoints that others kept.

    Exit code 1 if an entry is not as it was signed, or if the log is older or tells another story than a witness saw.
    """
    opened = Log(file, _parse(key))
    kept = [read_file(path, limit=MAX_NOTE_BYTES) for path in against or []]
    opened.check(*kept)
    if as_json:
        typer.echo(json.dumps({**_statement(opened), "witnessed": len(kept), "own_key": key is None}, indent=2))
        return
    _tell(opened, file)
    if key is None:
        typer.echo("The key is the one in the file: compare it with the one that you were given.")
    if not kept:
        typer.echo(
            "Whether later entries were cut off, only a checkpoint that somebody else kept can tell (--against)."
        )


@log.command("prove")
def prove(
    file: _File,
    entry: Annotated[int | None, typer.Option(help="Prove that this entry is in the log (C2SP tlog-proof).")] = None,
    since: Annotated[
        int | None, typer.Option(help="Prove to a witness that has seen so many entries that the log only grew.")
    ] = None,
    key: _Key = None,
) -> None:
    """Print the signed checkpoint of the log FILE, or a proof that ends in it."""
    if entry is not None and since is not None:
        raise typer.BadParameter("--entry and --since are two proofs: ask for one")
    opened = Log(file, _parse(key))
    proof = opened.note() if entry is None else opened.proof(entry)
    typer.echo((proof if since is None else opened.growth(since)).decode(), nl=False)


def _parse(key: str | None) -> NoteKey | None:
    return None if key is None else NoteKey.from_vkey(key)


def _statement(opened: Log) -> dict[str, object]:
    head = open_checkpoint(opened.note(), opened.key)
    return {"log": head.origin, "key": opened.key.to_vkey(), "size": head.size, "root": head.root.hex()}


def _tell(opened: Log, file: Path) -> None:
    told = _statement(opened)
    typer.echo(f"{file}: log {told['log']}, {told['size']} entries, as signed, root {str(told['root'])[:16]}")
    typer.echo(f"key {told['key']}")
