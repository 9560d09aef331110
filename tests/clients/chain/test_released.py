"""What leaves: clipped, noised, priced as replacement, paid for before the first byte, and never more often."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from clients.chain.payer import Payer, event, ledger_name
from clients.chain.released import Releaser, noised
from clients.channel.message import Message
from clients.channel.session import Session
from privacy.dp.accounting import epsilon
from privacy.dp.events import Relation
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import BudgetExhaustedError, ConfigError, PrivacyError
from privacy.store.books import Link, State
from privacy.store.budgets import UNLIMITED, Asset
from privacy.store.ledger import Ledger
from privacy.store.log import Record
from strategies.chain_plan import ChainPlan
from strategies.release import AnyRelease, Crossing, Release, UnsafeRelease
from tests.clients.chain.rows import MLP, at_work, batches, model, plan_of
from tests.privacy.store.example import ledger_in

U = ("owner-pc", "cloud-gpu", "owner-pc")
BOTH = frozenset({Crossing.ACTIVATIONS, Crossing.GRADIENTS})
DELTA = Decimal("1e-5")
BIG = Filter.for_budget(FilterKind.GDP, Decimal(900), DELTA)


def release(noise: float = 5.0, most: int = 100, clip: float = 1.0, to: str = "cloud") -> Release:
    return Release("owner", to, BOTH, clip, noise, most)


UNSAFE = UnsafeRelease("owner", "cloud", frozenset(Crossing), "a rehearsal on public data")


def payer_of(ledger: Ledger, most_records: int = 1, note: Callable[[], None] = lambda: None) -> Payer:
    return Payer(ledger, "hearts", most_records=most_records, note_ledger=note)


@dataclass
class Owner:
    """A ledger, a log, and a releaser over both."""

    folder: Path
    plan: ChainPlan
    asset: Asset = field(default_factory=lambda: Asset("hearts", {"record": BIG}))
    most_records: int = 1
    records: list[Record] = field(default_factory=list)
    heads: list[Link] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.ledger = ledger_in(self.folder, self.asset, simulation=True)

    @property
    def payer(self) -> Payer:
        """Notes where the ledger is."""
        return payer_of(self.ledger, self.most_records, lambda: self.heads.append(self.ledger.head()))

    def releaser(self, **changes: object) -> Releaser:
        fields: dict[str, object] = {
            "payer": self.payer,
            "entropy": secrets.token_bytes,
            "record": self.records.append,
        }
        return Releaser(self.plan, **{**fields, **changes})  # type: ignore[arg-type]


def owner(folder: Path, *releases: AnyRelease, train: bool = True, **more: object) -> Owner:
    plan = plan_of(model(MLP), U, train=train, releases=releases or (release(),))
    return Owner(folder, plan, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("noise", "times", "expected"),
    [
        (1.0, 1, 10.7), (1.0, 10, 48.8), (1.0, 50, 166), (2.0, 1, 4.7), (2.0, 10, 19), (2.0, 50, 57),
        (5.0, 1, 1.7), (5.0, 10, 6.2), (5.0, 50, 16.5), (10.0, 1, 0.79), (10.0, 10, 2.8), (10.0, 50, 7.1),
        (20.0, 1, 0.38), (20.0, 10, 1.3), (20.0, 50, 3.2),
    ],
)  # fmt: skip
def test_the_price_is_the_design_papers_table(noise: float, times: int, expected: float) -> None:
    """Computed there by Rényi accounting for a Gaussian of sensitivity 2 C, under replacement."""
    priced = epsilon([event(release(noise), times)], DELTA, Relation.REPLACE_SPECIAL, "RDP")
    assert priced == pytest.approx(expected, rel=0.02, abs=0.006)


def test_rows_are_shortened_and_a_row_that_is_no_number_is_zeros() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0], [1e30, 1e30]])
    quiet = noised(rows, replace(release(clip=1.0), noise=1e-12), secrets.token_bytes)
    wanted = [[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.5**0.5, 0.5**0.5]]
    torch.testing.assert_close(quiet, torch.tensor(wanted), rtol=0, atol=2e-6)
    assert float(quiet.double().norm(dim=1).max()) <= 1.0 + 1e-9
    images = noised(torch.ones(4, 2, 3, 3), replace(release(clip=3.0), noise=1e-12), secrets.token_bytes)
    assert images.flatten(1).norm(dim=1).tolist() == pytest.approx([3.0] * 4, rel=2e-6)


def test_every_entry_gets_noise_of_its_own_whose_size_is_clip_times_noise() -> None:
    draws = noised(torch.zeros(400, 250), release(noise=4.0, clip=0.5), secrets.token_bytes)
    assert draws.dtype == torch.float32
    assert float(draws.std()) == pytest.approx(2.0, rel=0.02)
    assert abs(float(draws.mean())) < 0.03
    assert len(set(draws.flatten().tolist())) > 99_000
    again = noised(torch.zeros(400, 250), release(noise=4.0, clip=0.5), secrets.token_bytes)
    assert abs(float(np.corrcoef(draws.numpy().ravel(), again.numpy().ravel())[0, 1])) < 0.02


def test_a_schedule_is_debited_at_once_for_every_crossing(tmp_path: Path) -> None:
    there = owner(tmp_path)
    there.releaser().pay(7)
    (debit,) = there.ledger.debits()
    assert debit.event == event(release(), 14), "activations and gradients, seven times each"
    assert (debit.limit, debit.claim, debit.asset, debit.purpose) == (100, "record", "hearts", "training")
    assert debit.run == ledger_name(release())
    (noted,) = there.records
    assert (noted.kind, noted.content["times"], noted.content["plan"]) == ("release", 7, there.plan.digest)


def test_unlike_releases_are_debited_apart_and_all_or_none(tmp_path: Path) -> None:
    split = [
        replace(release(noise=noise, most=9), what=frozenset({each}))
        for each, noise in ((Crossing.ACTIVATIONS, 5.0), (Crossing.GRADIENTS, 7.0))
    ]
    there = owner(tmp_path, *split)
    there.releaser().pay(3)
    assert sorted(debit.event.count for debit in there.ledger.debits()) == [3, 3]
    assert {debit.run for debit in there.ledger.debits()} == {ledger_name(each) for each in split}
    there.releaser().pay(6)
    with pytest.raises(BudgetExhaustedError):
        there.releaser().pay(1)
    assert len(there.ledger.debits()) == 4


def test_most_holds_over_all_sessions_for_ever(tmp_path: Path) -> None:
    there = owner(tmp_path, release(most=10))
    there.releaser().pay(3)
    there.releaser().pay(2)
    with pytest.raises(BudgetExhaustedError, match="for cloud 10 times, and 10 are spent: no room for 2") as error:
        there.releaser().pay(1)
    assert len(error.value.lines()) == 2
    again = payer_of(Ledger(tmp_path / "ledger.db"))
    with pytest.raises(BudgetExhaustedError):
        there.releaser(payer=again).pay(1)
    assert sum(debit.event.count for debit in there.ledger.debits()) == 10


def test_one_budget_pays_for_training_and_for_releases(tmp_path: Path) -> None:
    small = Filter.for_budget(FilterKind.GDP, Decimal(8), DELTA)
    there = owner(tmp_path, asset=Asset("hearts", {"record": small}))
    fits = small.room(Decimal(0), event(release(), 1))
    with pytest.raises(BudgetExhaustedError, match="budget of asset hearts"):
        there.releaser().pay(fits)  # two crossings each
    there.releaser().pay(fits // 2)
    assert not there.records[1:], "what was refused is not noted as released"


def test_every_claim_of_the_asset_is_priced_or_the_release_refused(tmp_path: Path) -> None:
    budgets = dict.fromkeys(("record", "patient", "record-distributed"), UNLIMITED)
    there = owner(tmp_path, asset=Asset("hearts", budgets), most_records=4)
    there.releaser().pay(1)
    assert {debit.claim: debit.event for debit in there.ledger.debits()} == {
        "record": event(release(), 2), "patient": event(release(), 2, 4), "record-distributed": event(release(), 2),
    }  # fmt: skip
    site = owner(tmp_path / "other", asset=Asset("hearts", {"record": BIG, "site": BIG}))
    with pytest.raises(PrivacyError, match="no price per site"):
        site.releaser().pay(1)
    assert not site.ledger.debits()


def test_no_record_leaves_more_often_than_was_paid_for(tmp_path: Path) -> None:
    releaser = owner(tmp_path).releaser()
    with pytest.raises(PrivacyError, match="more often than was paid for"):
        releaser.admit(None)
    releaser = owner(tmp_path / "each").releaser()
    releaser.pay(2)
    releaser.admit([1, 2])
    releaser.admit([2, 3])
    releaser.admit([1, 3, 4])
    with pytest.raises(PrivacyError, match="more often"):
        releaser.admit([4, 2])


def test_a_step_of_all_records_counts_beside_the_steps_of_named_ones(tmp_path: Path) -> None:
    releaser = owner(tmp_path).releaser()
    releaser.pay(2)
    releaser.admit(None)
    releaser.admit([1])
    for step in ([1], None):
        with pytest.raises(PrivacyError, match="more often"):
            releaser.admit(step)
    releaser.admit([2])


def test_values_pass_as_they_are_only_when_unsafe_and_on_record(tmp_path: Path) -> None:
    there = owner(tmp_path, UNSAFE)
    releaser = there.releaser(payer=None)
    rows = torch.randn(3, 4)
    with pytest.raises(PrivacyError, match="not paid for"):
        releaser.values(Crossing.ACTIVATIONS, rows)
    releaser.pay(1)
    releaser.admit(None)
    assert releaser.values(Crossing.ACTIVATIONS, rows) is rows
    (noted,) = there.records
    assert (noted.kind, noted.content["unsafe"]) == ("unsafe-release", "a rehearsal on public data")
    assert not there.ledger.debits()


def test_noise_without_a_budget_and_noise_on_whole_numbers_are_refused(tmp_path: Path) -> None:
    there = owner(tmp_path)
    with pytest.raises(PrivacyError, match="no budget pays"):
        there.releaser(payer=None)
    releaser = there.releaser()
    releaser.pay(1)
    releaser.admit(None)
    for odd in (torch.ones(3, 2, dtype=torch.int64), torch.ones(3)):
        with pytest.raises(PrivacyError, match="rows of real numbers"):
            releaser.values(Crossing.ACTIVATIONS, odd)


@dataclass
class Tap:
    """A session that notes what the ledger said when something was sent."""

    session: Session
    sent: list[Message]
    ask: Callable[[], object]
    said: list[object]

    def __getattr__(self, name: str) -> object:
        return getattr(self.session, name)

    def send(self, message: Message, timeout: float | None = None) -> None:
        self.sent.append(message)
        self.said.append(self.ask())
        self.session.send(message, timeout)


def test_the_debit_is_durable_before_the_first_byte_and_marked_after_the_last(tmp_path: Path) -> None:
    there = owner(tmp_path, train=False)
    sent: list[Message] = []
    said: list[object] = []

    def tapped(_end: str, session: Session) -> Session:
        return Tap(session, sent, lambda: Ledger(tmp_path / "ledger.db").executed("hearts"), said)  # type: ignore[return-value]

    releaser = there.releaser()
    ((x, _),) = batches(MLP, 1)
    with at_work(there.plan, model(MLP), releaser=releaser, tapped=tapped) as row:
        with pytest.raises(PrivacyError, match="paid for"):
            row.driver.infer(x)
        assert not sent
        releaser.pay(1)
        row.driver.infer(x)
        assert sent[0].kind == "forward"
        assert set(said) == {1}
        plain = row.own.front.value(x) if row.own.front else x
        noise = torch.from_numpy(np.array(sent[0].tensors["x"])) - plain
        assert float(noise.std()) > 4.0
        assert states(there.ledger) == [State.RESERVED]
        with pytest.raises(PrivacyError, match="more often"):
            row.driver.infer(x)
        assert len(sent) == 1
    assert states(there.ledger) == [State.RELEASED]


def states(ledger: Ledger) -> list[State]:
    with ledger.reading() as books:
        return [line.state for line in books.lines.values()]


def test_weights_trained_without_privacy_refuse_noise_and_nothing_is_sent(tmp_path: Path) -> None:
    there = owner(tmp_path)
    releaser = there.releaser()
    releaser.pay(1)
    ((x, y),) = batches(MLP, 1)
    with at_work(there.plan, model(MLP), releaser=releaser) as row:
        with pytest.raises(PrivacyError, match="carry the records along") as error:
            row.driver.step(x, y)
        assert len(error.value.lines()) == 2
        for stage in row.own.stages:
            stage.module.requires_grad_(False)
        assert row.driver.step(x, y) > 0  # what stands still carries nothing


def test_both_crossings_of_a_private_step_are_noised_and_clipped_for_the_records_own_loss(tmp_path: Path) -> None:
    free = Asset("hearts", {"record": UNLIMITED})
    there = owner(tmp_path, replace(release(clip=1e-3), noise=1e-9), asset=free)
    releaser, sent = there.releaser(), list[Message]()
    releaser.pay(1)
    ((x, y),) = batches(MLP, 1)

    def tapped(_end: str, session: Session) -> Session:
        return Tap(session, sent, lambda: None, [])  # type: ignore[return-value]

    with at_work(there.plan, model(MLP), releaser=releaser, tapped=tapped) as row:
        driven = row.driver.per_record(x, y)
    ahead, back = (torch.from_numpy(np.array(message.tensors["x"])) for message in sent[:2])
    assert [message.kind for message in sent[:2]] == ["forward", "backward"]
    assert ahead.norm(dim=1).tolist() == pytest.approx([1e-3] * 32, rel=1e-4)
    assert (back * 32).norm(dim=1).tolist() == pytest.approx([1e-3] * 32, rel=1e-4)
    assert driven.batch[0].shape[0] == 32


def test_a_layer_that_mixes_records_takes_no_noise(tmp_path: Path) -> None:
    layers = [
        nn.Linear(20, 8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.BatchNorm1d(8),
        nn.Linear(8, 5),
    ]
    mixing = nn.Sequential(*layers)
    plan = plan_of(mixing, U, releases=(release(),))
    row = at_work(plan, mixing, releaser=Owner(tmp_path, plan).releaser())
    with pytest.raises(ConfigError, match="mixes records"), row:
        pass


def test_within_the_organisation_nothing_is_counted_or_paid_for(tmp_path: Path) -> None:
    plan = plan_of(model(MLP), ("owner-pc", "owner-room", "owner-pc"), train=False)
    there = Owner(tmp_path, plan)
    ((x, _),) = batches(MLP, 1)
    with at_work(plan, model(MLP), releaser=there.releaser(payer=None)) as row:
        row.driver.infer(x)
        other = owner(tmp_path / "other", train=False).releaser()
        with pytest.raises(ValueError, match="another plan"):
            type(row.driver)(plan, row.links, row.own, other)
    assert not there.records


def test_what_leaves_the_organisation_takes_a_releaser(tmp_path: Path) -> None:
    plan = owner(tmp_path).plan
    with pytest.raises(PrivacyError, match="nothing counts or pays"), at_work(plan, model(MLP)):
        pass
    with (
        pytest.raises(PrivacyError, match="activations of owner would reach cloud"),
        at_work(replace(plan, releases=()), model(MLP)),
    ):
        pass
