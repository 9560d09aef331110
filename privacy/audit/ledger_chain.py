"""The budget ledgers behind the epsilon claims, entry by entry: the ``ledger.chain`` claim, made and checked here.

The file holds every entry of every ledger that the run debited, from the first. The verifier folds them as the ledger
itself does (``privacy.store.books``) and makes every decision about a budget again. What a chain of hashes cannot show
is that it is the newest and the only one: for that, compare its head with one that somebody else kept.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from privacy.audit import canonical, payments, pricing, words
from privacy.audit.answers import Answer, CheckedClaim
from privacy.audit.payments import Payment
from privacy.audit.statement import Statement
from privacy.dp.events import Event, merged
from privacy.dp.filters import Filter
from privacy.errors import ConfigError, FederationError, VerificationError
from privacy.store.books import Books, Line, Link
from privacy.store.budgets import Debit

CLAIM = "ledger.chain"
LEDGERS_FILE = "transcript/ledgers.jsonl"
"""Where a run folder holds the entries, a line each: one ledger after the other, in the order of their holders."""
MAX_LEDGERS_BYTES = 2**28
_MOST_EVENTS = 1000
"""Different events under one budget: more no report can show (``lifetime`` in its schema), and each takes time."""
_Entry = tuple[int, str, bytes]
"""Number, text and hash."""


def lines(holder: str, entries: Iterable[tuple[Link, str]]) -> Iterator[bytes]:
    """Yields the lines of one ledger, newlines included; all of it is public.

    Args:
      holder: Whose: a site, or ``server``.
      entries: Of the whole ledger (``Ledger.entries``).
    """
    for link, text in entries:
        body = {"holder": holder, "seq": link.seq, "text": text, "hash": link.hash.hex()}
        yield canonical.dumps(body) + b"\n"


def claim_of(data: bytes, run: str) -> dict[str, Any]:
    """Checks every entry and returns the claim that follows from them.

    Args:
      data: ``LEDGERS_FILE``. Untrusted.
      run: What the ledgers call the run whose debits are counted.

    Raises: VerificationError: The first entry that is malformed, breaks a chain, or should have been refused.
    """
    return _claim(data, run, folded(data))


def folded(data: bytes) -> dict[str, Books]:
    """Reads the ledgers from a stranger, by holder; no debit is in them that a budget or a plan did not allow.

    Raises: VerificationError: As ``claim_of``.
    """
    found: dict[str, Books] = {}
    for holder, entries in groupby(_entries(data), key=lambda one: one[0]):
        if found and holder <= max(found):
            raise VerificationError("the ledgers are not in the order of their holders, or one stands twice")
        try:
            found[holder] = _fold([entry for _, entry in entries])
        except (FederationError, ArithmeticError, RecursionError, TypeError, ValueError, LookupError) as error:
            raise VerificationError(f"the ledger of {holder}: {str(error)[:200]}") from None
    if not found:
        raise VerificationError("there is no ledger in the file")
    return found


def check(report: Statement, data: bytes | None, progress: Callable[[str], None] = lambda _line: None) -> CheckedClaim:
    """Checks the ``ledger.chain`` claim of a report that makes it.

    Args:
      report: Fits its schema.
      data: ``LEDGERS_FILE`` at hand, if there is one. Untrusted.
      progress: Called with one plain line before the entries are read.
    """

    def checked(verdict: Answer, why: str) -> CheckedClaim:
        return CheckedClaim(CLAIM, "proved", verdict, why)

    claim = report.claim(CLAIM) or {}
    if problem := next(contradictions(report), ""):
        return checked("fails", problem)
    if data is None:
        return checked("unchecked", f"no {LEDGERS_FILE} at hand; it must have SHA-256 {claim['ledgers_sha256']}")
    if (found := hashlib.sha256(data).hexdigest()) != claim["ledgers_sha256"]:
        return checked("fails", f"the ledgers have SHA-256 {found[:16]}..., the report's are others")
    progress(f"reading {sum(one['entries'] for one in claim['ledgers'])} ledger entries")
    try:
        if problem := next(_problems(report, claim, data), ""):
            return checked("fails", problem)
    except FederationError as error:
        return checked("fails", str(error))
    return checked("holds", _summary(claim))


def _entries(data: bytes) -> Iterator[tuple[str, _Entry]]:
    if len(data) > MAX_LEDGERS_BYTES:
        raise VerificationError(f"the ledgers are larger than {MAX_LEDGERS_BYTES // 2**20} MB")
    for number, line in enumerate(io.BytesIO(data), start=1):
        try:
            value = canonical.loads(line.removesuffix(b"\n"), what=f"line {number} of the ledgers")
        except ConfigError as error:
            raise VerificationError(str(error)) from None
        match value:
            case {"holder": str(holder), "seq": int(seq), "text": str(text), "hash": str(digest), **more} if not more:
                yield holder, (seq, text, _hash(digest))
            case _:
                raise VerificationError(f"line {number} of the ledgers is no entry of one")
    if data and not data.endswith(b"\n"):
        raise VerificationError("the ledgers do not end in a newline: they are cut short or were edited")


def _hash(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""  # that of no entry


def _fold(entries: Sequence[_Entry]) -> Books:
    """Every entry must follow from the one before, and every reservation be one that the ledger then had to allow."""
    books = Books()
    for release, group in groupby(
        ((_reserved(entry[1]), entry) for entry in entries), key=lambda one: _release(one[0])
    ):
        listed = list(group)
        debits = [debit for debit, _ in listed if debit is not None]
        if release is not None:
            books.check(debits)
        for _, entry in listed:
            books.read(*entry)
        for debit in debits:
            asset = books.asset(debit.asset)
            if (
                isinstance(asset.budgets[debit.claim], Filter)
                and books.n_events(asset.name, debit.claim) > _MOST_EVENTS
            ):
                raise VerificationError(f"{asset.name} was debited for more than {_MOST_EVENTS} different events")
    return books


def _reserved(text: str) -> Debit | None:
    """Returns the debit of an entry that reserves one; what cannot be read is left to ``Books.read``."""
    try:
        body = json.loads(text)
        return Debit.from_json(body) if body.pop("kind") == "reserved" else None
    except (FederationError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _release(debit: Debit | None) -> tuple[str, str, str, int, int] | None:
    return None if debit is None else debit.release


def _claim(data: bytes, run: str, ledgers: Mapping[str, Books]) -> dict[str, Any]:
    return {
        "id": CLAIM,
        "kind": "proved",
        "ledgers_sha256": hashlib.sha256(data).hexdigest(),
        "ledgers": [
            {
                "holder": holder,
                "ledger": books.ledger,
                "entries": books.head.seq,
                "head": books.head.hash.hex(),
                "debits": len(_of_run(books, run)),
            }
            for holder, books in ledgers.items()
        ],
    }


def _of_run(books: Books, run: str) -> list[Line]:
    return [line for line in books.lines.values() if line.debit.run == run]


def contradictions(report: Statement) -> Iterator[str]:
    """Yields where the claim and the rest of the report tell two stories, in words; nothing without the claim."""
    claim, real = report.claim(CLAIM), report.predicate["run"]["engine"] == "sites"
    if claim is None:
        return
    holders = [entry["holder"] for entry in claim["ledgers"]]
    if holders != sorted(set(holders)) or len({entry["ledger"] for entry in claim["ledgers"]}) < len(holders):
        yield "the ledgers are not sorted by their holders, or two are one"
    paid: Counter[str] = Counter()
    for epsilon in report.epsilons:
        for entry in epsilon["sites"]:
            # Ledgers of real sites stay there; what they paid is in their statements.
            if not real or epsilon["placement"] == "central":
                paid[entry["site"]] += sum(event["count"] for event in entry["events"]) // pricing.per_attempt(
                    epsilon, entry
                )
    if set(holders) != {holder for holder, debits in paid.items() if debits}:
        yield "the ledgers shown are not those of the holders that paid for something"
    for entry in claim["ledgers"]:
        if entry["debits"] != paid[entry["holder"]]:
            yield f"the ledger of {entry['holder']} has {entry['debits']} debits, the claims {paid[entry['holder']]}"


def _problems(report: Statement, claim: Mapping[str, Any], data: bytes) -> Iterator[str]:
    run, ledgers = report.predicate["run"], folded(data)
    if _claim(data, run["id"], ledgers) != claim:
        yield "the ledgers' heads, or what this run debited, are not what the report says"
    for holder, books in ledgers.items():
        if books.simulation == (run["engine"] == "sites"):
            yield f"the ledger of {holder} is a simulation's exactly where the run is none"
        debits = _of_run(books, run["id"])
        paid = [Payment(one.debit.claim, one.debit.round, one.debit.attempt, one.debit.event) for one in debits]
        yield from payments.problems(report, holder, paid)
        yield from _asset(report, holder, books)
        for claim_of_epsilon, entry in payments.claimed(report, holder):
            name = payments.ledger_name(claim_of_epsilon)
            mine = [one for one in debits if one.debit.claim == name]
            if mine:
                yield from _budget(holder, books, mine[-1], entry.get("lifetime"))


def _asset(report: Statement, holder: str, books: Books) -> Iterator[str]:
    """A simulation's assets are named after scenario and site: another name would have another budget."""
    run = report.predicate["run"]
    assets = {books.asset(one.debit.asset).name for one in _of_run(books, run["id"])}
    if len(assets) > 1:
        yield f"{holder} debited this run to several assets"
    expected = f"{run['scenario']}/{'all sites' if holder == 'server' else holder}"
    if run["engine"] != "sites" and assets != {books.asset(expected).name}:
        yield f"{holder} debited this run to another asset than {expected}"


def _budget(holder: str, books: Books, last: Line, shown: dict[str, Any] | None) -> Iterator[str]:
    """The budget that the report shows must be that of the ledger, and what was spent of it must be shown in full."""
    asset, claim = books.asset(last.debit.asset), last.debit.claim
    budget = asset.budgets[claim]
    if not isinstance(budget, Filter) or shown is None:
        if isinstance(budget, Filter) or shown is not None:
            yield f"the report shows a budget of {holder}, or none, and its ledger the contrary"
        return
    if books.asset(shown["asset"]) != asset:
        yield f"the budget shown for {holder} is that of another asset"
    terms = (str(budget.kind), budget.order, f"{budget.epsilon:f}", f"{budget.delta:f}")
    if terms != (shown["filter"], shown["order"], shown["budget"], shown["delta"]):
        yield f"the ledger of {holder} has another budget than the report shows"
    # Another run may have debited while the report was drawn up; nothing that stood before this run's end is left out.
    before = [line.debit for line in books.lines.values() if line.link <= last.link]
    before = [debit for debit in before if (books.asset(debit.asset), debit.claim) == (asset, claim)]
    least, listed = _executions([debit.event for debit in before]), _executions(pricing.events_of(shown))
    most = _executions(books.spent(asset.name, claim))
    if any(listed[one] < times for one, times in least.items()):
        yield f"the ledger of {holder} holds debits that the report's lifetime leaves out"
    if any(most[one] < times for one, times in listed.items()):
        yield f"the report's lifetime of {holder} has debits that its ledger does not hold"


def _executions(events: Sequence[Event]) -> Counter[Event]:
    return Counter({one.times(1): one.count for one in merged(events)})


def _summary(claim: Mapping[str, Any]) -> str:
    """Returns in one line what chains that hold show, and what they do not."""
    ledgers = claim["ledgers"]
    entries, debits = (sum(one[name] for one in ledgers) for name in ("entries", "debits"))
    return (
        f"{words.count(len(ledgers), 'ledger')} of {entries} entries, unbroken from the first, within every budget; "
        f"{words.count(debits, 'debit')} of this run are the events of the claims, one for each attempt that was "
        "answered; not shown: that a ledger is the only one and the newest, compare its head with one kept elsewhere"
    )
