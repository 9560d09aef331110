"""Whose budget pays for values that leave home, and how much: one price for the gate, for the ledger and for people.

What is priced. Each time a record leaves under a release, its row moves by up to 2 C where another record stands in its
place, and gets noise of standard deviation ``noise * C``: one full-batch Gaussian of multiplier ``noise / 2``. The rows
of one patient that leave together get noise of their own each, so stacked they are one Gaussian whose value moves by up
to ``2 C sqrt(rows)``: multiplier ``noise / (2 sqrt(rows))``, exactly what as many single releases cost. Whoever sees a
release is among those that a ``-distributed`` claim holds against, so under it the price is the same.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Context, Decimal

import rfc8785

from privacy.dp.accounting import epsilon
from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.dp.filters import RELATION, Filter
from privacy.errors import BudgetExhaustedError, LocalProtocolError, PrivacyError
from privacy.store.books import Books, Link
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from strategies.chain_plan import ChainPlan, leaving
from strategies.release import Release, release_body

_TRIES = 8  # at a number that another process may take first
_RECORD, _PATIENT, _DISTRIBUTED = "record", "patient", "-distributed"
_DOWN = Context(prec=20, rounding=ROUND_FLOOR)
_ROOT_PLACES = 12

Leaves = Mapping[Release, int]
"""How often values of one record leave home under each release with noise."""


def leaves(plan: ChainPlan, times: int = 1) -> Leaves:
    """Returns what leaves home in so many steps, each over a record at most once.

    Raises: PrivacyError: A crossing without a release (`check_crossings`).
    """
    found = Counter(each for each in leaving(plan).values() if isinstance(each, Release))
    return {release: n * times for release, n in found.items()}


def event(release: Release, count: int, rows: int = 1) -> GaussianEvent:
    """Returns what it costs that values leave ``count`` times, for someone with ``rows`` records each time."""
    multiplier = Decimal(repr(release.noise)) / 2
    if rows > 1:
        multiplier = _DOWN.divide(multiplier, _root_up(rows))
    return GaussianEvent(multiplier, FULL_BATCH, count)


def event_under(claim: str, release: Release, count: int, most_records: int) -> GaussianEvent:
    """Returns what a release costs under a claim.

    Args:
      claim: Of the asset.
      release: With noise.
      count: How often values of one record leave.
      most_records: Of one patient, among those that leave together.

    Raises: PrivacyError: The claim is about something else than records or patients.
    """
    unit = claim.removesuffix(_DISTRIBUTED)
    if unit not in {_RECORD, _PATIENT}:
        raise PrivacyError(f"a release of records' values has no price per {claim}: nothing leaves")
    return event(release, count, most_records if unit == _PATIENT else 1)


def ledger_name(release: Release) -> str:
    """Returns what the ledger counts a release's executions under: its terms, so that ``most`` holds for ever."""
    digest = hashlib.sha256(rfc8785.dumps(release_body(release))).hexdigest()
    return f"release to {release.to[:40]} {digest[:32]}"


def executed(books: Books, asset: str, run: str, claim: str) -> int:
    """Counts the executions under a claim that the ledger holds of a run, or of a release by its `ledger_name`."""
    debits = (line.debit for line in books.lines.values() if (line.debit.run, line.debit.claim) == (run, claim))
    return sum(debit.event.count for debit in debits if books.asset(debit.asset).name == asset)


@dataclass(frozen=True)
class Payer:
    """Whose budget pays.

    Attributes:
      asset: Where the records are from, by a name that the ledger knows.
      purpose: One that the asset allows.
      most_records: Of one patient, among those that leave together; at least 1. It counts where the asset has a budget
        per patient. Secret.
      note_ledger: Puts the ledger's head on the site's log, durably; raises if it cannot: then nothing leaves.
    """

    ledger: Ledger = field(repr=False)
    asset: str
    purpose: str = "training"
    most_records: int = field(kw_only=True, repr=False)
    note_ledger: Callable[[], None] = field(kw_only=True, repr=False)

    def pay(self, what: Leaves) -> tuple[Link, ...]:
        """Debits releases, all or none, under every claim of the asset; then puts the ledger's head on the log.

        Returns: The reservations, for `released`.
        Raises: FederationError: A budget or a release's ``most`` does not cover it, or nothing could be written down.
        """
        for _ in range(_TRIES):
            with self.ledger.reading() as books:
                debits = [debit for release, n in what.items() for debit in self._debits(books, release, n)]
            try:
                links = self.ledger.reserve(debits)
            except LocalProtocolError:  # another process took the number
                continue
            self.note_ledger()
            return links
        raise PrivacyError("the ledger is too busy to pay for a release: nothing leaves")

    def released(self, links: Sequence[Link]) -> None:
        """Marks reservations as released; a failure loses the mark and nothing else."""
        self.ledger.release(links)

    def after(self, what: Leaves) -> Decimal:
        """Returns what the asset will have cost under its dearest claim once all this has left."""
        with self.ledger.reading() as books:
            asset = books.asset(self.asset)
            every = {claim: [*books.spent(asset.name, claim), *self._events(claim, what)] for claim in asset.budgets}
        filters = {claim: budget for claim, budget in asset.budgets.items() if isinstance(budget, Filter)}
        found = [budget.epsilon_of(budget.spent(every[claim])) for claim, budget in filters.items()]
        return Decimal(str(max(found, default=math.inf)))

    def cost(self, what: Leaves) -> float | None:
        """Returns the epsilon of these releases alone under the dearest claim; ``None`` where nothing has a price."""
        if not what:
            return None
        with self.ledger.reading() as books:
            budgets = books.asset(self.asset).budgets
        found = [
            epsilon(self._events(claim, what), budget.delta, RELATION)
            for claim, budget in budgets.items()
            if isinstance(budget, Filter)
        ]
        return max(found, default=None)

    def _events(self, claim: str, what: Leaves) -> list[GaussianEvent]:
        return [event_under(claim, release, n, self.most_records) for release, n in what.items()]

    def _debits(self, books: Books, release: Release, count: int) -> list[Debit]:
        """Returns a line for each claim that the asset has a budget for."""
        asset, run = books.asset(self.asset), ledger_name(release)
        spent = max(executed(books, asset.name, run, claim) for claim in asset.budgets)
        if spent + count > release.most:
            raise BudgetExhaustedError(
                f"a record of {asset.name} may leave for {release.to} {release.most} times, and {spent} are spent:"
                f" no room for {count}",
                hint="A release is for good: its owner can make another one, with another `most`, out of the same"
                " budget.",
            )
        before = [line.debit.round for line in books.lines.values() if line.debit.run == run]
        return [
            Debit(
                asset.name,
                1 + max(before, default=0),
                1,
                event_under(claim, release, count, self.most_records),
                limit=release.most,
                run=run,
                purpose=self.purpose,
                claim=claim,
            )
            for claim in asset.budgets
        ]


def _root_up(n: int) -> Decimal:
    """Returns the square root, rounded up."""
    return Decimal(math.isqrt(n * 10 ** (2 * _ROOT_PLACES) - 1) + 1).scaleb(-_ROOT_PLACES)
