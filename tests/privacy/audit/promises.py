"""The masked sample run with differential privacy in every place where noise can be added, and with budgets.

No product of this project adds noise at the server *and* in shares; a report could. Site budgets have paid for an
earlier run of 17 noisy steps, too.
"""

import copy
from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any

from privacy.audit import report
from privacy.dp.accounting import Accountant, epsilon, round_up
from privacy.dp.events import FULL_BATCH, Arithmetic, Event, GaussianEvent, Relation, merged
from privacy.dp.filters import Filter, FilterKind
from privacy.dp.skellam import DistributedNoise
from tests.privacy.audit import ledgers, masked, sample

BUDGET = Decimal(2)
EXACT = GaussianEvent(sample.NOISE, FULL_BATCH, 16, arithmetic=Arithmetic.INTEGER_EXACT)
SHARED = DistributedNoise.calibrated(
    target=Decimal(1), delta=sample.DELTA, clip=Decimal("0.1"), counted=2, dimension=14, executions=17
)
IDS = {"local": "privacy.epsilon", "central": "privacy.epsilon.site", "distributed": "privacy.epsilon.distributed"}
SWITCHES = {"local": "record_dp", "central": "site_dp", "distributed": "distributed_dp"}


def price(events: Sequence[Event], relation: Relation, accountant: Accountant) -> str:
    return round_up(epsilon(events, sample.DELTA, relation, accountant))


def lifetime(asset: str, events: Sequence[Event], kind: FilterKind) -> dict[str, Any]:
    """A budget of epsilon 2 after these events; its epsilon is the filter's own."""
    budget = Filter.for_budget(kind, BUDGET, sample.DELTA, events[0])
    return {
        "asset": asset,
        "epsilon": round_up(budget.epsilon_of(budget.spent(events))),
        "budget": str(BUDGET),
        "delta": str(sample.DELTA),
        "filter": str(kind),
        "order": budget.order,
        "events": [event.to_json() for event in events],
    }


def holder(name: str, event: Event, accountant: Accountant, **more: Any) -> dict[str, Any]:
    """What one ledger paid for one mechanism, honestly priced."""
    return {
        "site": name,
        "clip": "0.1",
        "epsilon": price([event], Relation.REPLACE_SPECIAL, accountant),
        "epsilon_replace_one": price([event], Relation.REPLACE_ONE, accountant),
        "epsilon_rdp": price([event], Relation.REPLACE_SPECIAL, "RDP"),
        "planned_epsilon": price([event.times(17)], Relation.REPLACE_SPECIAL, accountant),
        "events": [event.to_json()],
        **more,
    }


def claim(
    placement: str, unit: str, accountant: Accountant, sites: list[dict[str, Any]], **more: Any
) -> dict[str, Any]:
    return {
        "id": IDS[placement],
        "kind": "proved",
        "placement": placement,
        "unit": unit,
        "relation": "replace_special",
        "delta": "0.001",
        "accountant": accountant,
        "target_epsilon": "1",
        "executions_per_attempt": 1,
        "budget_executions": 17,
        "sites": sites,
        **more,
    }


@cache
def _claims() -> dict[str, dict[str, Any]]:
    local, shared = [], []
    for site, n_train in sample.N_TRAIN.items():
        steps = 15 if site == "switzerland" else 16
        own, share = EXACT.times(steps), SHARED.event(steps)
        ever = lifetime(f"hospitals/{site}", merged([EXACT.times(17), own]), FilterKind.GDP)
        local.append(holder(site, own, "PLD", n_train=n_train, lifetime=ever))
        ever = lifetime(f"hospitals/{site}", merged([SHARED.event(17), share]), FilterKind.RENYI)
        shared.append(holder(site, share, "RDP", lifetime=ever))
    hypothetical = [
        {
            "shares": shares,
            "counted": shares == 2,
            "epsilon": price([SHARED.hypothetical(shares, 16)], Relation.REPLACE_SPECIAL, "RDP"),
        }
        for shares in (1, 2, 3, 4)
    ]
    return {
        "local": claim("local", "record", "PLD", local),
        "central": claim("central", "site", "PLD", [holder("server", EXACT.times(15), "PLD")]),
        "distributed": claim("distributed", "site", "RDP", shared, hypothetical=hypothetical),
    }


def predicate(*placements: str) -> dict[str, Any]:
    """The masked sample report with a claim for each placement, all of them unless named, before those about masks."""
    return copy.deepcopy(_predicate(placements or tuple(IDS)))


@cache
def _predicate(placements: tuple[str, ...]) -> dict[str, Any]:
    body = masked.predicate()
    for place, placement in enumerate(placements, start=1):
        body["claims"].insert(place, copy.deepcopy(_claims()[placement]))
        body["protections"][SWITCHES[placement]] = True
    body["claims"][-2:-2] = ledgers.evidence(body)
    return sample.told(body)


def of(body: dict[str, Any], placement: str) -> dict[str, Any]:
    """The claim of a predicate with that placement."""
    return next(one for one in body["claims"] if one["id"] == IDS[placement])


def signed(*placements: str) -> bytes:
    """An honest report."""
    return report.sign(predicate(*placements), sample.MODEL_SHA256, sample.KEY)
