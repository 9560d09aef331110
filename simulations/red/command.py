"""``collegium audit --red``: tries every member and shows who found it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import typer

from simulations.red import audits, conduct, documents, noise, refusals
from simulations.red.member import Accepted, Member, Outcome
from simulations.red.trial import Trials

MEMBERS: tuple[Member, ...] = (
    *noise.MEMBERS,
    *conduct.MEMBERS,
    *documents.MEMBERS,
    *audits.MEMBERS,
    *refusals.MEMBERS,
)

NOT_FOUND_BY_DOCUMENTS = (
    "sites that all run other code than they say, and say of their tests, ledgers and rounds what correct code would",
    "a site that trains on other records than it declared, or sends a wrong update",
    "sites and coordinator that together make up a run that never took place",
    "copies of updates that were sent past the software",
    "state that a site kept from an attempt that did not count, where noise and payments are right",
)
"""What no verifier can see, since every number that it could see agrees."""


def show(*, as_json: bool) -> int:
    """Tries all members and prints a line each; returns 0 if every one was rejected, otherwise 1."""
    found: dict[str, Outcome] = {}
    with TemporaryDirectory(prefix="collegium-red-") as place:
        trials = Trials(Path(place))
        for member in MEMBERS:
            found[member.name] = trials.run(member)
            typer.echo(_line(member, found[member.name]), err=as_json)
    if as_json:
        sys.stdout.write(json.dumps({"members": list(_listed(found))}, indent=2) + "\n")
    else:
        for line in NOT_FOUND_BY_DOCUMENTS:
            typer.echo(f"no document shows  {line}")
    return int(any(isinstance(outcome, Accepted) for outcome in found.values()))


def _line(member: Member, outcome: Outcome) -> str:
    if isinstance(outcome, Accepted):
        return f"ACCEPTED     {member.name}: {member.says}"
    return f"{outcome.by:11}  {member.name}: {outcome.why}"


def _listed(found: dict[str, Outcome]) -> Iterator[dict[str, str | None]]:
    for member in MEMBERS:
        outcome = found[member.name]
        by, why = (None, "") if isinstance(outcome, Accepted) else (outcome.by, outcome.why)
        yield {"name": member.name, "says": member.says, "rejected_by": by, "why": why}
