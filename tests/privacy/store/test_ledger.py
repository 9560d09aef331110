"""The life of a debit: reserved before anything leaves, spent for ever, perhaps released."""

import math
import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from statistics import NormalDist

import pytest

from privacy.dp.events import FULL_BATCH, GaussianEvent, Sampling, SamplingType, SkellamEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import (
    BudgetExhaustedError,
    ConfigError,
    FederationError,
    LocalProtocolError,
    PrivacyError,
    UnsupportedEventError,
    VerificationError,
)
from privacy.store.books import Link, State
from privacy.store.budgets import UNLIMITED, Asset
from privacy.store.ledger import Ledger
from tests.privacy.store.example import CHEAP, EVENT, FITS, GDP, HEARTS, debit, ledger_in


def states(ledger: Ledger) -> list[State]:
    with ledger.reading() as books:
        return [line.state for line in books.lines.values()]


def gaussian_epsilon(squared_mu: float, delta: float) -> float:
    """Dong, Roth and Su (2022), corollary 2.13, solved for epsilon; rounded up to four places."""
    mu, cdf, low, high = squared_mu**0.5, NormalDist().cdf, 0.0, 10.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        loss = cdf(-middle / mu + mu / 2) - math.exp(middle) * cdf(-middle / mu - mu / 2)
        low, high = (middle, high) if loss > delta else (low, middle)
    return math.ceil(high * 1e4) / 1e4


class TestLife:
    def test_debits_are_listed_as_made_and_survive_reopening(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        skellam = SkellamEvent(Decimal("1e6"), Decimal(16), Decimal(64), 1)
        ledger.declare(Asset("lungs", {"record": Filter.for_budget(FilterKind.RENYI, Decimal(1), Decimal("0.001"))}))
        made = [debit(1), debit(1, 2), debit(1, asset="lungs", event=skellam, run="run-2")]
        for one in made:
            ledger.reserve([one])
        again = Ledger(tmp_path / "ledger.db")
        assert again.debits() == tuple(made)
        assert again.debits("hearts") == tuple(made[:2])
        assert again.executed("hearts") == 6
        assert again.executed("hearts", "run-1") == 6
        assert again.executed("hearts", "run-2") == again.executed("nobody") == 0

    def test_a_reservation_counts_whether_or_not_it_was_released(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        links = [ledger.reserve([debit(number)]) for number in (1, 2)]
        ledger.release(links[0])
        again = Ledger(tmp_path / "ledger.db")
        assert states(again) == [State.RELEASED, State.RESERVED]
        with again.reading() as books:
            assert books.spent("hearts", "record") == (EVENT.times(6),)

    def test_an_attempt_is_debited_once(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit()])
        with pytest.raises(LocalProtocolError, match="already debited"):
            ledger.reserve([debit(event=EVENT.times(1))])
        with pytest.raises(LocalProtocolError, match="already debited"):
            ledger.reserve([debit(2), debit(2, event=EVENT.times(1))])
        ledger.reserve([debit(run="run-2")])
        assert ledger.executed("hearts") == 6

    def test_a_release_is_marked_once_and_of_this_reservation(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        links = ledger.reserve([debit()])
        with pytest.raises(LocalProtocolError, match="no open reservation"):
            ledger.release([Link(links[0].seq, bytes(32))])
        ledger.release(links)
        for wrong in (links, [Link(1, bytes(32))], [Link(99, bytes(32))]):
            with pytest.raises(LocalProtocolError, match="no open reservation"):
                ledger.release(wrong)

    def test_what_is_asked_beforehand_is_not_written(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        head = ledger.head()
        ledger.check([debit()])
        with pytest.raises(BudgetExhaustedError):
            ledger.check([debit(event=EVENT.times(1000))])
        assert ledger.head() == head


class TestBudget:
    def test_it_ends_where_the_filter_says(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        for number in range(1, FITS + 1):
            ledger.reserve([debit(number, run=f"run-{number % 3}")])
        with pytest.raises(BudgetExhaustedError, match="the budget of asset hearts per record does not cover") as info:
            ledger.reserve([debit(FITS + 1)])
        spent, would_be = (gaussian_epsilon(3 * n / 81, 0.001) for n in (FITS, FITS + 1))
        assert spent < 1 < would_be
        told = f"Epsilon {spent:.4f} is spent and {would_be:.4f} would be, of 1 at delta 0.001 (GDP filter)."
        assert info.value.hint == told
        assert len(ledger.debits()) == FITS

    def test_all_of_one_reservation_counts_together(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        with pytest.raises(BudgetExhaustedError):
            ledger.reserve([debit(number) for number in range(FITS + 1)])
        assert ledger.debits() == ()

    def test_other_names_of_the_population_share_it(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path, replace(HEARTS, aliases=("hearts-2024",)))
        ledger.declare(replace(HEARTS, aliases=("hearts of the north",)))
        names = ("hearts", "hearts-2024", "hearts of the north")
        for number in range(FITS):
            ledger.reserve([debit(number, asset=names[number % 3])])
        for name in names:
            with pytest.raises(BudgetExhaustedError):
                Ledger(tmp_path / "ledger.db").reserve([debit(99, asset=name)])

    def test_another_population_does_not(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path, HEARTS, Asset("lungs", {"record": GDP}))
        for number in range(FITS):
            ledger.reserve([debit(number), debit(number, asset="lungs")])
        for name in ("hearts", "lungs"):
            with pytest.raises(BudgetExhaustedError, match=name):
                ledger.reserve([debit(99, asset=name)])

    def test_a_purpose_has_its_share_and_the_budget_binds_the_sum(self, tmp_path: Path) -> None:
        shares = {"training": Decimal(1), "evaluation": Decimal("0.25")}
        ledger = ledger_in(tmp_path, replace(HEARTS, purposes=shares))
        quarter = FITS // 4
        for number in range(quarter):
            ledger.reserve([debit(number, purpose="evaluation")])
        with pytest.raises(BudgetExhaustedError, match="per record for evaluation"):
            ledger.reserve([debit(99, purpose="evaluation")])
        for number in range(FITS - quarter):
            ledger.reserve([debit(number)])
        with pytest.raises(BudgetExhaustedError, match="per record does"):
            ledger.reserve([debit(99)])

    def test_every_claim_is_priced_and_they_are_never_added(self, tmp_path: Path) -> None:
        both = replace(HEARTS, budgets={"record": GDP, "record-distributed": GDP})
        ledger = ledger_in(tmp_path, both)
        with pytest.raises(UnsupportedEventError, match="not priced per record-distributed"):
            ledger.reserve([debit()])
        for number in range(FITS):
            ledger.reserve([debit(number), debit(number, claim="record-distributed")])
        with pytest.raises(BudgetExhaustedError):
            ledger.reserve([debit(99), debit(99, claim="record-distributed")])
        assert len(ledger.debits()) == 2 * FITS

    def test_an_event_without_a_price_is_refused(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        sampled = GaussianEvent(Decimal(20), Sampling(SamplingType.POISSON, Decimal("0.1")), 1)
        for unpriced in ([debit(event=sampled)], []):
            with pytest.raises(UnsupportedEventError):
                ledger.reserve(unpriced)
        assert ledger.debits() == ()

    @pytest.mark.parametrize(
        "event",
        [
            EVENT.times(10**9 + 1),
            replace(EVENT, noise_multiplier=Decimal("9." + "1" * 60)),
            replace(CHEAP, count=10**30),
        ],
    )
    def test_what_could_not_be_read_back_is_not_written(self, tmp_path: Path, event: GaussianEvent) -> None:
        ledger = ledger_in(tmp_path, Asset("va", {"record": UNLIMITED}), simulation=True)
        with pytest.raises(PrivacyError):
            ledger.reserve([debit(asset="va", event=event, limit=10**40)])
        share = {"training": Decimal("0." + "1" * 60)}
        with pytest.raises(FederationError):
            ledger.declare(Asset("lungs", {"record": GDP}, share))
        assert Ledger(tmp_path / "ledger.db").debits() == ()

    @pytest.mark.parametrize("multiplier", ["1e-20", "0.001"])
    def test_next_to_no_noise_is_over_the_budget_too(self, tmp_path: Path, multiplier: str) -> None:
        ledger = ledger_in(tmp_path)
        loud = GaussianEvent(Decimal(multiplier), FULL_BATCH, 1)
        with pytest.raises(BudgetExhaustedError, match="does not cover"):
            ledger.reserve([debit(event=loud)])

    def test_what_was_not_declared_is_refused(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        for wrong in (debit(asset="lungs"), debit(purpose="tuning"), debit(claim="site")):
            with pytest.raises(ConfigError):
                ledger.reserve([wrong])

    def test_a_budget_is_fixed_for_ever(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit()])
        head = ledger.head()
        ledger.declare(HEARTS)
        other = Filter.for_budget(FilterKind.GDP, Decimal(2), Decimal("0.001"))
        less = Filter.for_budget(FilterKind.GDP, Decimal("0.5"), Decimal("0.001"))
        for changed in (
            replace(HEARTS, budgets={"record": other}),
            replace(HEARTS, budgets={"record": less}),
            replace(HEARTS, budgets={"record": UNLIMITED}),
            replace(HEARTS, purposes={"training": Decimal(1), "tuning": Decimal(1)}),
        ):
            with pytest.raises(ConfigError):
                ledger.declare(changed)
        assert ledger.head() == head

    def test_spend_does_not_move_between_names(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path, replace(HEARTS, aliases=("hearts-2024",)), Asset("lungs", {"record": GDP}))
        for wrong in (
            Asset("hearts-2024", {"record": GDP}),
            Asset("livers", {"record": GDP}, aliases=("hearts-2024",)),
            Asset("livers", {"record": GDP}, aliases=("lungs",)),
        ):
            with pytest.raises(ConfigError, match="already"):
                ledger.declare(wrong)

    def test_no_budget_is_for_simulations(self, tmp_path: Path) -> None:
        free = Asset("anything", {"record": UNLIMITED})
        with pytest.raises(ConfigError, match="simulations"):
            ledger_in(tmp_path, free)
        (tmp_path / "simulated").mkdir()
        ledger = ledger_in(tmp_path / "simulated", free, simulation=True)
        ledger.reserve([debit(asset="anything", event=EVENT.times(10**6), limit=10**6)])
        assert Ledger(tmp_path / "simulated" / "ledger.db").executed("anything") == 10**6

    @pytest.mark.parametrize("name", ["", "x" * 101, "red\x1b[31m", "two\nlines", "\u202egnp"])
    def test_names_can_be_shown(self, name: str) -> None:
        with pytest.raises(ConfigError, match="no name"):
            Asset(name, {"record": GDP})
        with pytest.raises(ConfigError, match="no name"):
            debit(run=name)

    def test_an_asset_needs_a_budget_and_shares_of_it(self) -> None:
        for budgets, purposes in (({}, {"a": 1}), ({"record": GDP}, {}), ({"record": GDP}, {"a": 0})):
            with pytest.raises(ConfigError):
                Asset("hearts", budgets, {purpose: Decimal(share) for purpose, share in purposes.items()})
        for share in ("1.01", "-0.1", "NaN", "Infinity"):
            with pytest.raises(ConfigError):
                replace(HEARTS, purposes={"training": Decimal(share)})


class TestPlan:
    def test_the_limit_of_a_run_holds(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(1, limit=6), debit(2, limit=6)])
        with pytest.raises(BudgetExhaustedError, match="6 of 6 executions are spent; no room for 3"):
            ledger.reserve([debit(3, limit=6)])
        ledger.reserve([debit(3, limit=3, run="run-2")])

    def test_it_holds_within_one_reservation(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        with pytest.raises(BudgetExhaustedError, match="3 of 5"):
            ledger.reserve([debit(1, limit=5), debit(2, limit=5)])

    def test_it_cannot_be_changed_in_the_middle(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(1, limit=6)])
        with pytest.raises(LocalProtocolError, match="allowed 6 executions and cannot allow 9"):
            ledger.reserve([debit(2, limit=9)])

    def test_it_holds_when_many_debit_at_once(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        refused = []

        def spend(attempt: int, through: Ledger) -> None:
            try:
                through.reserve([debit(1, attempt, limit=10)])
            except BudgetExhaustedError:
                refused.append(attempt)

        other = Ledger(tmp_path / "ledger.db")
        threads = [threading.Thread(target=spend, args=(n, ledger if n % 2 else other)) for n in range(1, 13)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert ledger.executed("hearts") == 9
        assert len(refused) == 9


class TestWitness:
    def test_an_older_copy_is_found(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        first = ledger.head()
        ledger.reserve([debit(1)])
        copy = (tmp_path / "ledger.db").read_bytes()
        ledger.reserve([debit(2)])
        last = ledger.head()
        for witnessed in (first, last):
            ledger.check_head(witnessed)
        (tmp_path / "ledger.db").write_bytes(copy)
        with pytest.raises(VerificationError, match="witness saw entry 4 of this ledger, which now ends at entry 3"):
            Ledger(tmp_path / "ledger.db").check_head(last)
        Ledger(tmp_path / "ledger.db").check_head(first)
        with pytest.raises(VerificationError, match="replaced by another copy"):
            ledger.reserve([debit(3)])

    def test_another_history_of_the_same_length_is_found_while_open(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(1)])
        (tmp_path / "other").mkdir()
        other = ledger_in(tmp_path / "other")
        other.reserve([debit(1)])
        assert other.head().seq == ledger.head().seq
        (tmp_path / "ledger.db").write_bytes((tmp_path / "other" / "ledger.db").read_bytes())
        with pytest.raises(VerificationError, match="replaced by another copy"):
            ledger.reserve([debit(2)])

    def test_another_history_is_found(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(1)])
        (tmp_path / "other").mkdir()
        other = ledger_in(tmp_path / "other")
        other.reserve([debit(1)])
        assert other.head().seq == ledger.head().seq
        with pytest.raises(VerificationError, match="another story"):
            other.check_head(ledger.head())
