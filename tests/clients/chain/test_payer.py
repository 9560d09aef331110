"""One price for the gate, the ledger and people: of all that leaves together, for the patient with most records."""

from decimal import Decimal
from pathlib import Path

import pytest

from clients.chain.judged import check_releases
from clients.chain.payer import Payer, event, event_under, leaves
from clients.chain.released import Releaser
from clients.channel_gate import ChannelGate
from privacy.dp.accounting import epsilon
from privacy.dp.events import Event, GaussianEvent, Relation, event_from_json
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, PrivacyError
from privacy.policy.channel_requests import ReleaseFacts
from privacy.store.budgets import Asset
from strategies.release import Crossing, Release
from tests.clients.chain.test_released import BIG, BOTH, DELTA, Owner, owner, release

SPLIT = tuple(
    Release("owner", "cloud", frozenset({each}), 1.0, 20.0, 34) for each in (Crossing.ACTIVATIONS, Crossing.GRADIENTS)
)
FILTERS = {kind: Filter.for_budget(kind, Decimal(900), DELTA) for kind in FilterKind}


@pytest.mark.parametrize("noise", [1e-9, 0.3, 5.0, 1 / 3, 1e12])
@pytest.mark.parametrize("rows", [2, 3, 10, 1000, 12345])
def test_rows_of_one_patient_cost_what_as_many_releases_cost_and_no_less(noise: float, rows: int) -> None:
    once, together = event(release(noise), 1), event(release(noise), 1, rows)
    rate = [(1 / each.noise_multiplier) ** 2 for each in (once, together)]
    assert 0 <= rate[1] / rate[0] / rows - 1 < Decimal("1e-11")
    assert event_from_json(together.to_json()) == together


@pytest.mark.parametrize("kind", FilterKind)
def test_a_patients_debit_is_at_least_that_of_its_rows_one_by_one(kind: FilterKind) -> None:
    budget = FILTERS[kind]
    apart: list[Event] = [event(release(), 3)] * 7
    assert budget.spent([event(release(), 3, 7)]) == pytest.approx(budget.spent(apart), rel=Decimal("1e-6"))
    assert event(release(), 3, 7).noise_multiplier < event(release(), 3).noise_multiplier / Decimal("2.6457")


def test_a_claim_per_record_is_about_one_and_a_claim_per_site_has_no_price() -> None:
    for claim, rows in (("record", 1), ("record-distributed", 1), ("patient", 9), ("patient-distributed", 9)):
        assert event_under(claim, release(), 4, 9) == event(release(), 4, rows)
    with pytest.raises(PrivacyError, match="no price per site"):
        event_under("site", release(), 1, 1)


def patients(folder: Path, *releases: Release, most_records: int = 10) -> Owner:
    return owner(folder, *releases, asset=Asset("hearts", {"patient": BIG, "record": BIG}), most_records=most_records)


def after(there: Owner) -> Decimal:
    with there.ledger.reading() as books:
        budgets = books.asset("hearts").budgets
        spent = [BIG.epsilon_of(BIG.spent(books.spent("hearts", claim))) for claim in budgets]
    return Decimal(str(max(spent)))


@pytest.mark.parametrize("releases", [(), SPLIT], ids=["one table", "two tables"])
def test_gate_ledger_and_people_are_told_one_number(releases: tuple[Release, ...], tmp_path: Path) -> None:
    there = patients(tmp_path, *releases)
    wanted = there.payer.after(leaves(there.plan, 3))
    told = there.payer.cost(leaves(there.plan, 3))
    there.releaser().pay(3)
    assert after(there) == pytest.approx(wanted)
    each = (releases or (release(),))[0].noise
    single = GaussianEvent(Decimal(str(each)) / 2, event(release(), 1).sampling, 2 * 3 * 10)
    assert told == pytest.approx(epsilon([single], DELTA, Relation.REPLACE_SPECIAL), rel=1e-6)
    assert told == pytest.approx(float(wanted), rel=1e-3)


class Cap(ChannelGate):
    """A policy with a largest epsilon, which notes what it is asked."""

    def __init__(self, most: str) -> None:
        vars(self).update(most=Decimal(most), asked=[])

    def release(self, facts: ReleaseFacts) -> None:
        asked: list[ReleaseFacts] = vars(self)["asked"]
        asked.append(facts)
        if facts.epsilon_after > vars(self)["most"]:
            raise PrivacyError("too dear")


@pytest.mark.parametrize("releases", [(release(20.0, most=34),), SPLIT], ids=["one table", "two tables"])
def test_releases_that_are_split_over_tables_are_judged_together(releases: tuple[Release, ...], tmp_path: Path) -> None:
    budget = Filter.for_budget(FilterKind.GDP, Decimal(4), Decimal("0.001"))
    there = owner(tmp_path, *releases, asset=Asset("hearts", {"record": budget}))
    with pytest.raises(PrivacyError, match="too dear"):
        check_releases(Cap("1.5"), there.plan, there.payer, purpose="training", times=17)
    gate = Cap("1.63")
    check_releases(gate, there.plan, there.payer, purpose="training", times=17)
    assert {each.epsilon_after for each in vars(gate)["asked"]} == {there.payer.after(leaves(there.plan, 17))}
    there.releaser().pay(17)
    with there.ledger.reading() as books:
        spent = budget.epsilon_of(budget.spent(books.spent("hearts", "record")))
    assert 1.6 < spent < 1.63


def test_the_ledgers_head_is_on_the_log_when_paying_returns(tmp_path: Path) -> None:
    there, said = owner(tmp_path), list[tuple[int, int]]()

    def record(_: object) -> None:
        said.append((len(there.heads), there.ledger.head().seq))

    releaser = there.releaser(record=record)
    releaser.pay(1)
    assert there.heads == [there.ledger.head()]
    assert said == [(1, there.ledger.head().seq)], "and before anything else is written down about it"


def test_what_cannot_be_put_on_the_log_lets_nothing_leave(tmp_path: Path) -> None:
    there = owner(tmp_path)

    def full() -> None:
        raise ConfigError("the disk is full")

    payer = Payer(there.ledger, "hearts", most_records=1, note_ledger=full)
    releaser = Releaser(there.plan, payer=payer, entropy=bytes, record=there.records.append)
    with pytest.raises(ConfigError, match="full"):
        releaser.pay(1)
    with pytest.raises(PrivacyError, match="more often than was paid for"):
        releaser.admit(None)
    assert not there.records
    assert len(there.ledger.debits()) == 1, "it stays paid"


def test_both_crossings_are_counted(tmp_path: Path) -> None:
    assert leaves(owner(tmp_path).plan, 3) == {release(): 6}
    assert leaves(owner(tmp_path / "a", train=False).plan, 3) == {release(): 3}
    assert release().what == BOTH
