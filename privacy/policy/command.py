"""``collegium site policy``: try a policy on a table of requests before anybody depends on it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import click
import typer

from privacy.policy import shipped, table
from privacy.policy.engine import CedarPolicy, Kind
from privacy.policy.table import Row
from privacy.store.run_folder import read_text

policy = typer.Typer(name="policy", no_args_is_help=True, add_completion=False)


@policy.callback()
def overview() -> None:
    """Try out who may do what."""


@policy.command("test")
def try_out(
    file: Annotated[Path, typer.Argument(metavar="POLICY", show_default=False)],
    requests: Annotated[Path, typer.Argument(metavar="TABLE", show_default=False)],
    kind: Annotated[
        Kind,
        typer.Option(click_type=click.Choice(get_args(Kind)), help="Whose policy it is: a site's or the server's."),
    ] = "site",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put the requests of TABLE to POLICY, a line a request.

    Exit code 1 if an answer, or a rule that decided it, is not as the table says.
    """
    asked = CedarPolicy(read_text(file), kind)
    rows = table.ask(asked, table.parse(read_text(requests)))
    decided = {reason for row in rows for reason in row.verdict.reasons}
    idle = [rule for rule in asked.rules if rule not in decided]
    if as_json:
        told = {"policy": asked.digest, "kind": kind, "cases": [_told(row) for row in rows], "undecided_by": idle}
        typer.echo(json.dumps({**told, "as_expected": all(row.holds for row in rows)}, indent=2, ensure_ascii=False))
    else:
        _show(rows, idle, asked.digest)
    raise typer.Exit(0 if all(row.holds for row in rows) else 1)


@policy.command("show")
def show(name: Annotated[str, typer.Argument(help=f"One of: {', '.join(shipped.NAMES)}.", show_default=False)]) -> None:
    """Print a file that is shipped, to copy and change."""
    typer.echo(shipped.read(name), nl=False)


def _show(rows: Sequence[Row], idle: Sequence[str], digest: str) -> None:
    for row in rows:
        mark = "ok   " if row.holds else "WRONG"
        typer.echo(f"{mark}  {_answer(row.verdict.allowed, row.verdict.reasons)}  {row.case.name}")
        if not row.holds:
            typer.echo(f"       expected: {_answer(row.case.allowed, row.case.by)}")
    if idle:
        typer.echo(f"No request here is decided by: {', '.join(idle)}")
    typer.echo(f"{sum(row.holds for row in rows)} of {len(rows)} as expected, policy {digest}")


def _answer(allowed: bool, reasons: Sequence[str]) -> str:
    return f"{'allowed' if allowed else 'refused'} ({', '.join(reasons)})"


def _told(row: Row) -> dict[str, Any]:
    return {
        "name": row.case.name,
        "expected": {"allowed": row.case.allowed, "by": list(row.case.by)},
        "allowed": row.verdict.allowed,
        "reasons": list(row.verdict.reasons),
        "as_expected": row.holds,
    }
