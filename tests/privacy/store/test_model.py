"""Any order of reserving, releasing, crashing and reopening, from two sides: the ledger is the plain model."""

import contextlib
import shutil
import sqlite3
import tempfile
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, MultipleResults, RuleBasedStateMachine, initialize, invariant, multiple, rule

from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.errors import FederationError
from privacy.store import database
from privacy.store.books import Link, State
from privacy.store.budgets import Asset, Debit
from privacy.store.ledger import Ledger
from tests.privacy.store.example import GDP

SHARES = {"training": Decimal(1), "tuning": Decimal("0.4")}
HEARTS = Asset("hearts", {"record": GDP}, SHARES)
LUNGS = Asset("lungs", {"record": GDP, "site": GDP}, SHARES)
OTHERS = ("hearts-2024", "hearts-2025")
LIMIT = Fraction(GDP.limit)

sides = st.integers(0, 1)
events = st.builds(
    GaussianEvent, st.sampled_from([Decimal(5), Decimal(21), Decimal(50)]), st.just(FULL_BATCH), st.integers(1, 3)
)
debits = st.builds(
    Debit,
    st.sampled_from(["hearts", "hearts", "lungs", "lungs", *OTHERS, *OTHERS, "livers"]),
    st.integers(1, 3),
    st.integers(1, 2),
    events,
    limit=st.sampled_from([6, 6, 6, 6, 5]),
    run=st.sampled_from(["run-1", "run-2"]),
    purpose=st.sampled_from(["training", "training", "tuning"]),
    claim=st.sampled_from(["record", "record", "record", "site"]),
)


@dataclass
class Model:
    """What the ledger should say, with no database and no chain."""

    names: dict[str, str] = field(default_factory=lambda: {"hearts": "hearts", "lungs": "lungs", OTHERS[0]: "hearts"})
    made: list[Debit] = field(default_factory=list)
    states: list[State] = field(default_factory=list)

    def allows(self, wanted: list[Debit]) -> bool:
        """Says whether all of it may be reserved, from the rules and nothing else."""
        rules = (self._declared, self._once_under_every_claim, self._within_the_plan, self._within_the_budget)
        return all(rule(debit, wanted) for rule in rules for debit in wanted)

    def _asset(self, debit: Debit) -> Asset | None:
        return {"hearts": HEARTS, "lungs": LUNGS}.get(self.names.get(debit.asset, ""))

    def _declared(self, debit: Debit, _: list[Debit]) -> bool:
        asset = self._asset(debit)
        return asset is not None and debit.claim in asset.budgets and debit.purpose in asset.purposes

    def _once_under_every_claim(self, debit: Debit, wanted: list[Debit]) -> bool:
        asset = self._asset(debit)
        claims = [one.claim for one in wanted if one.release == debit.release]
        before = [one for one in self.made if one.release == debit.release]
        return asset is not None and sorted(claims) == sorted(asset.budgets) and not before

    def _within_the_plan(self, debit: Debit, wanted: list[Debit]) -> bool:
        limits = {one.limit for one in [*self.made, *wanted] if one.plan == debit.plan}
        ran = [one.event.count for one in [*self.made, *wanted] if one.plan == debit.plan]
        return limits == {debit.limit} and sum(ran) <= debit.limit

    def _within_the_budget(self, debit: Debit, wanted: list[Debit]) -> bool:
        asset = self._asset(debit)
        everything = [one for one in [*self.made, *wanted] if one.claim == debit.claim]
        same = [one for one in everything if self._asset(one) is asset]
        used = [one for one in same if one.purpose == debit.purpose]
        share = Fraction(asset.purposes[debit.purpose]) if asset else 0
        return cost(same) <= LIMIT and cost(used) <= LIMIT * share


def cost(spent: list[Debit]) -> Fraction:
    """Sum of 1 / z^2 (Smith and Thakurta 2022)."""
    gaussians = [debit.event for debit in spent if isinstance(debit.event, GaussianEvent)]
    return sum((event.count / Fraction(event.noise_multiplier) ** 2 for event in gaussians), Fraction(0))


def under_every_claim(debit: Debit) -> list[Debit]:
    return [replace(debit, claim=claim) for claim in (LUNGS if debit.asset == "lungs" else HEARTS).budgets]


class Life(RuleBasedStateMachine):
    links: Bundle[tuple[int, Link]] = Bundle("links")

    def __init__(self) -> None:
        super().__init__()
        self.durable, database._SYNCHRONOUS = database._SYNCHRONOUS, "OFF"  # no power fails here
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "ledger.db"
        self.model = Model()

    @initialize()
    def made(self) -> None:
        ledger = Ledger.create(self.path)
        for asset in (replace(HEARTS, aliases=OTHERS[:1]), LUNGS):
            ledger.declare(asset)
        self.sides = [Ledger(self.path), Ledger(self.path)]

    def teardown(self) -> None:
        database._SYNCHRONOUS = self.durable
        shutil.rmtree(self.folder)

    @rule(target=links, side=sides, releases=st.lists(debits, min_size=1, max_size=2), usual=st.integers(0, 3))
    def reserve(self, side: int, releases: list[Debit], usual: int) -> MultipleResults[tuple[int, Link]]:
        wanted = releases
        if usual:  # a new attempt, under every claim
            attempts = enumerate(releases, start=3 + len(self.model.made))
            new = [replace(one, attempt=attempt) for attempt, one in attempts]
            wanted = [line for one in new for line in under_every_claim(one)]
        allowed = self.model.allows(wanted)
        try:
            links = self.sides[side].reserve(wanted)
        except FederationError:
            assert not allowed
            return multiple()
        assert allowed
        first = len(self.model.made)
        self.model.made += wanted
        self.model.states += [State.RESERVED] * len(wanted)
        return multiple(*((first + place, link) for place, link in enumerate(links)))

    @rule(side=sides, which=links)
    def release(self, side: int, which: tuple[int, Link]) -> None:
        number, link = which
        try:
            self.sides[side].release([link])
        except FederationError:
            assert self.model.states[number] is not State.RESERVED
        else:
            assert self.model.states[number] is State.RESERVED
            self.model.states[number] = State.RELEASED

    @rule(side=sides)
    def crash_and_reopen(self, side: int) -> None:
        self.sides[side] = Ledger(self.path)

    @rule()
    def somebody_dies_in_the_middle(self) -> None:
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO entries VALUES (9999, '{}', zeroblob(32))")

    @rule(side=sides, alias=st.sampled_from(OTHERS))
    def declare(self, side: int, alias: str) -> None:
        self.sides[side].declare(replace(HEARTS, aliases=(alias,)))
        self.model.names[alias] = "hearts"

    @rule(side=sides, budget=st.sampled_from(["0.5", "2"]))
    def another_budget(self, side: int, budget: str) -> None:
        other = replace(GDP, epsilon=Decimal(budget))
        with contextlib.suppress(FederationError):
            self.sides[side].declare(replace(HEARTS, budgets={"record": other}))
            raise AssertionError("a budget is fixed")

    @rule(side=sides)
    def look(self, side: int) -> None:
        self.check(self.sides[side])

    @invariant()
    def says_what_the_model_says(self) -> None:
        self.check(Ledger(self.path))  # not the two sides: what they have not seen yet must not matter

    def check(self, ledger: Ledger) -> None:
        assert ledger.debits() == tuple(self.model.made)
        with ledger.reading() as books:
            assert [line.state for line in books.lines.values()] == self.model.states
        spent = [one for one in self.model.made if self.model.names[one.asset] == "hearts"]
        assert cost(spent) <= LIMIT


class LongLife(Life):
    """The same, for `make soak`."""


_SETTINGS = settings(stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Life.TestCase.settings = settings(_SETTINGS, max_examples=50)
LongLife.TestCase.settings = settings(_SETTINGS, max_examples=2000)
TestLife = Life.TestCase
TestLongLife = pytest.mark.timeout(3600)(pytest.mark.soak(LongLife.TestCase))
