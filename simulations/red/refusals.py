"""Members that cannot run at all: production code refuses them when they are asked for."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import numpy as np

from clients.records import Records
from clients.training import private_gradient
from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.dp.plan import DistributedPlan, RecordPlan, Unit
from privacy.store.budgets import Asset, Debit
from privacy.store.ledger import Ledger
from simulations.job import resolve
from simulations.options import Options
from simulations.red.member import Refused

_DELTA = Decimal("0.001")


def _ledger(place: Path, *aliases: str, order: int | None = None) -> Ledger:
    ledger = Ledger.create(place / "ledger.db")
    _declare(ledger, "patients", *aliases, order=order)
    return ledger


def _declare(ledger: Ledger, name: str, *aliases: str, order: int | None = None) -> None:
    kind = FilterKind.GDP if order is None else FilterKind.RENYI
    ledger.declare(Asset(name, {"record": Filter(kind, Decimal(1), _DELTA, order)}, aliases=aliases))


def _overspent(place: Path) -> None:
    """Ten runs at once, each with most of the budget."""
    ledger = _ledger(place)
    event = GaussianEvent(Decimal(4), FULL_BATCH, 1)

    def spend(number: int) -> None:
        ledger.reserve([Debit("patients", 1, 1, event, limit=1, run=f"run {number}")])

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(spend, range(10)))


def _renamed(place: Path) -> None:
    _declare(_ledger(place, "patients-2026"), "patients-2026")


def _other_order(place: Path) -> None:
    _declare(_ledger(place, order=8), "patients", order=32)


def _other_budget(place: Path) -> None:
    ledger = _ledger(place)
    ledger.declare(Asset("patients", {"record": Filter(FilterKind.GDP, Decimal(9), _DELTA, None)}))


def _paid_twice(place: Path) -> None:
    ledger, debit = _ledger(place), Debit("patients", 1, 1, GaussianEvent(Decimal(99), FULL_BATCH, 1), limit=9, run="a")
    ledger.reserve([debit])
    ledger.reserve([debit])


def _plan(survivors: int) -> DistributedPlan:
    return DistributedPlan.calibrated(
        target=Decimal(8),
        delta=_DELTA,
        clip=Decimal(1),
        unit=Unit.SITE,
        survivors=survivors,
        colluders=1,
        dimension=14,
        max_attempts=4,
    )


def _fewer_survivors(_place: Path) -> None:
    _plan(4).share(14, 3, secrets.token_bytes)


def _thin(_place: Path) -> None:
    _plan(1)


def _private_scaling(_place: Path) -> None:
    resolve(Options(scenario="hospitals-flamby", privacy="record"))


def _option_one(_place: Path) -> None:
    resolve(Options(strategy="scaffold", settings={"option": "1"}))


def _patients_by_record(_place: Path) -> None:
    """Three records of one patient under a plan that protects single records."""
    plan = RecordPlan.calibrated(
        target=Decimal(1), delta=_DELTA, clip=Decimal(1), n_records=2, batch=0, steps_per_attempt=1, max_attempts=1
    )
    records = Records(np.zeros((4, 2), np.float32), np.zeros(4, np.float32), np.array([0, 0, 0, 1]))
    private_gradient(records, plan, entropy=secrets.token_bytes)


MEMBERS: tuple[Refused, ...] = (
    Refused("concurrent overspend", "ten runs at once spend one budget", _overspent),
    Refused("renamed asset", "a population gets a second budget under another name", _renamed),
    Refused("order chosen afterwards", "the order of a Rényi filter is changed once spending began", _other_order),
    Refused("budget raised", "an asset is declared again with a larger budget", _other_budget),
    Refused("attempt debited twice", "one debit for two releases of an attempt", _paid_twice),
    Refused(
        "fewer survivors than priced",
        "a share of noise for a sum of fewer sites than were counted on",
        _fewer_survivors,
    ),
    Refused("thin region", "a part of the model that one site and no honest other hold", _thin),
    Refused("private scaling", "inputs scaled by a site's own statistics, under record privacy", _private_scaling),
    Refused("Scaffold's option I", "control variates from a gradient that nobody priced", _option_one),
    Refused(
        "more records than the unit", "patients with several records under a plan for single ones", _patients_by_record
    ),
)
