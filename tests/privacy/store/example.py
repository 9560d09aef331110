"""Assets, budgets and debits that several tests of the ledger share."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.store.budgets import Asset, Debit
from privacy.store.ledger import Ledger

EVENT = GaussianEvent(Decimal(9), FULL_BATCH, 3)
GDP = Filter.for_budget(FilterKind.GDP, Decimal(1), Decimal("0.001"))
FITS = 4
"""Debits of ``EVENT`` that fit the budget: its sum is at most 0.1508, and each costs 3 / 9^2 = 0.037."""
CHEAP = GaussianEvent(Decimal(10_000), FULL_BATCH, 1)
"""Hundreds of thousands of it fit."""
HEARTS = Asset("hearts", {"record": GDP})


def debit(round_number: int = 1, attempt: int = 1, **changes: Any) -> Debit:
    fields = {"asset": "hearts", "event": EVENT, "limit": 1000, "run": "run-1", **changes}
    return Debit(round=round_number, attempt=attempt, **fields)


def ledger_in(folder: Path, *assets: Asset, simulation: bool = False) -> Ledger:
    ledger = Ledger.create(folder / "ledger.db", simulation=simulation)
    for asset in assets or (HEARTS,):
        ledger.declare(asset)
    return ledger
