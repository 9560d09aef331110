"""Which attempts had to be paid for, by whom, and whether what a ledger or a site lists is exactly that.

A site pays for an attempt before it answers, so every answer has its debit; a debit without an answer is an attempt
that came to nothing, and must still be one that the report knows of.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from privacy.audit.pricing import events_of, per_attempt
from privacy.audit.statement import Statement
from privacy.dp.events import Event, merged


class Payment(NamedTuple):
    """A debit of the run, without what is the same in all of them; ``claim`` as the ledger calls it."""

    claim: str
    round: int
    attempt: int
    event: Event


def ledger_name(claim: Mapping[str, Any]) -> str:
    """Returns what a ledger calls one of ``report.epsilons`` (``PrivacyPlan.claim``)."""
    return f"{claim['unit']}-distributed" if claim["placement"] == "distributed" else str(claim["unit"])


def claimed(report: Statement, holder: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yields each of ``report.epsilons`` in which a holder is listed, with its entry there."""
    for claim in report.epsilons:
        yield from ((claim, entry) for entry in claim["sites"] if entry["site"] == holder)


def problems(report: Statement, holder: str, paid: Sequence[Payment]) -> Iterator[str]:
    """Yields where the payments of one ledger in this run and the report tell two stories, in words.

    Args:
      report: Fits its schema.
      holder: A site, or ``server``.
      paid: Every debit of the run that counts.

    Raises: UnsupportedEventError: The report lists an event that cannot be.
    """
    unclaimed = {one.claim for one in paid}
    for claim, entry in claimed(report, holder):
        unclaimed.discard(ledger_name(claim))
        mine = [one for one in paid if one.claim == ledger_name(claim)]
        if set(merged([one.event for one in mine])) != set(merged(events_of(entry))):
            yield f"{holder} lists other debits than {claim['id']} is computed from"
        yield from _attempts(report.predicate, holder, claim, mine)
        each = per_attempt(claim, entry)
        if any(one.event.count != each for one in mine):
            yield f"{holder} paid for an attempt of other than {each} executions"
    if unclaimed:
        yield f"{holder} paid for {', '.join(sorted(unclaimed))}, about which the report claims nothing"


def _attempts(body: Mapping[str, Any], holder: str, claim: Mapping[str, Any], paid: Sequence[Payment]) -> Iterator[str]:
    rounds, central = body["rounds"], claim["placement"] == "central"
    made = Counter((one.round, one.attempt) for one in paid)
    for entry in rounds:
        answered = not entry["skipped"] if central else holder in entry["answered"]
        if answered and not made[entry["round"], entry["attempts"]]:
            yield f"{holder} answered in round {entry['round']} without a debit for {claim['id']}"
    for (number, attempt), times in made.items():
        name = f"round {number}, attempt {attempt}"
        if times > 1:
            yield f"{holder} paid {times} times for {name}"
        if not _known(body, number, attempt):
            yield f"{holder} paid for {name}, of which the report says nothing"


def _known(body: Mapping[str, Any], number: int, attempt: int) -> bool:
    """Whether an attempt is one of those listed, or of the one that a run which did not finish ended in."""
    rounds = body["rounds"]
    if body["run"]["status"] != "finished" and number in {len(rounds), len(rounds) + 1}:
        return True
    return 1 <= number <= len(rounds) and 1 <= attempt <= rounds[number - 1]["attempts"]
