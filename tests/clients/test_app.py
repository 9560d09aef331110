"""A site's app under a server that lies, a ledger that fails and training that breaks: nothing unpaid ever leaves."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict

import clients.app
import clients.conformance
import privacy.dp.mechanism
from clients.app import Member, attempt, build
from clients.conformance import conform
from clients.work import Site, Work, contribute
from privacy.conformance import statements
from privacy.dp.events import merged
from privacy.errors import BudgetExhaustedError, ConfigError, RemoteProtocolError
from privacy.store.books import Link
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from simulations.members import fixed_member
from strategies.contribution import Contribution, Vector
from strategies.messages import HELLO, TRAIN, Hello, RoundReply
from strategies.scaffold import Scaffold
from tests.clients.example import START, VA, Keys, by_itself, plan, site, vector
from tests.clients.node import (
    JOB,
    body_of,
    invited,
    ledger_of,
    let_pass,
    member_in,
    node,
    question,
    refusal,
    training_task,
)

PATIENT = "Anna Weiss, cholesterol 412"


class TestAnswers:
    def test_the_roll_call_names_the_site_and_its_public_number_of_records(self, tmp_path: Path) -> None:
        answer = build(lambda _context, _invitation: member_in(tmp_path))(
            question(HELLO, b"an invitation"), node(member_in(tmp_path)).context
        )
        hello = Hello.decode(body_of(answer))
        assert hello == Hello(VA, 12, conformance=hello.conformance)
        assert {entry["placement"] for entry in statements.read(hello.conformance, who=VA)} == {"local"}

    def test_a_site_whose_release_path_does_not_conform_refuses_the_roll_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients.conformance, "conform", conform)  # not remembered from another test
        for name in ("rounded_gaussian", "rounded_gaussian_exact"):
            monkeypatch.setattr(privacy.dp.mechanism, name, lambda _s, n, e: np.zeros(n, np.int64) * len(e(16)))
        context = Context(1, 7, {}, RecordDict(), {})
        answer = build(lambda _context, _invitation: member_in(tmp_path))(question(HELLO, b"an invitation"), context)
        assert refusal(answer) == "va takes no part: its local noise fails A1, noise scale"
        assert context.state == {}

    def test_a_task_is_answered_with_the_contribution_of_that_attempt(self, tmp_path: Path) -> None:
        here = node(member_in(tmp_path), Keys())
        reply = RoundReply.decode(body_of(here.ask(training_task(2, 3))))
        assert (reply.site, reply.round, reply.attempt) == (VA, 2, 3)
        work = contribute(here.member.site, {"model": START}, round_number=2, entropy=Keys())
        np.testing.assert_array_equal(reply.contribution.arrays["update"], work.contribution.arrays["update"])

    def test_the_round_decides_which_records_come_next(self) -> None:
        one = site(batch=5)
        sent = node(Member(one, None, JOB, by_itself(one), admit=let_pass)).contribution(training_task(2))["update"]
        expected = contribute(one, {"model": START}, round_number=2).contribution.arrays["update"]
        np.testing.assert_array_equal(sent, expected)
        assert (sent != contribute(one, {"model": START}, round_number=1).contribution.arrays["update"]).any()

    def test_the_app_finds_out_who_it_is_for_every_message(self, tmp_path: Path) -> None:
        seen: list[Context] = []

        def member_of(context: Context, _invitation: bytes) -> Member:
            seen.append(context)
            return member_in(tmp_path)

        context = invited(**{"partition-id": 3})
        app = build(member_of)
        app(question(HELLO, b"an invitation"), context)
        app(question(TRAIN, training_task().encode()), context)
        assert seen == [context, context]

    def test_flower_refuses_every_other_type_of_message(self, tmp_path: Path) -> None:
        here = node(member_in(tmp_path))
        for kind in ("train", "train.other", "evaluate", "query", "query.records"):
            with pytest.raises(ValueError, match="function registered"):
                here.app(question(kind, b""), here.context)

    def test_in_production_randomness_is_the_operating_systems(self, tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        sent = []
        for folder in (one, other):
            folder.mkdir()
            member = member_in(folder)
            app = build(fixed_member(member))
            sent.append(body_of(app(question(TRAIN, training_task().encode()), node(member).context)))
        assert sent[0] != sent[1]


class FailingLedger(Ledger):
    """Reads, but cannot write any more."""

    def reserve(self, debits: Sequence[Debit]) -> tuple[Link, ...]:
        raise ConfigError(f"the ledger cannot be written: {debits}")


def not_finite(*arguments: Any, **options: Any) -> Work:
    """Trains, and finds infinity."""
    work = contribute(*arguments, **options)
    endless = {name: np.full_like(array, np.inf) for name, array in work.contribution.arrays.items()}
    return replace(work, contribution=Contribution(endless), kept={})


class TestDebit:
    def test_an_answer_is_paid_for_in_full(self, tmp_path: Path) -> None:
        here = node(member_in(tmp_path))
        here.contribution(training_task(1, 1))
        here.contribution(training_task(1, 2))
        here.contribution(training_task(2, 1))
        debits = ledger_of(here.member).debits()
        assert [(debit.asset, debit.round, debit.attempt) for debit in debits] == [(VA, 1, 1), (VA, 1, 2), (VA, 2, 1)]
        assert merged([debit.event for debit in debits]) == (plan().event(9),)

    def test_a_ledger_that_fails_keeps_the_contribution_in(self, tmp_path: Path) -> None:
        member = member_in(tmp_path, ledger=FailingLedger)
        keys = Keys()
        here = node(member, keys)
        refusal(here.ask(training_task()))
        assert keys.drawn, "the order is: train, debit, answer"
        assert here.memory() == {}

    def test_the_debit_comes_after_training_and_before_anything_is_kept(self, tmp_path: Path) -> None:
        keys, seen = Keys(), []

        class Watching(Ledger):
            def reserve(self, debits: Sequence[Debit]) -> tuple[Link, ...]:
                seen.append((len(keys.drawn), here.memory()))
                return super().reserve(debits)

        here = node(member_in(tmp_path, ledger=Watching), keys)
        here.contribution(training_task())
        assert seen == [(6, {})]
        assert here.memory() != {}

    def test_training_that_fails_costs_nothing_and_changes_nothing(self, tmp_path: Path) -> None:
        def broken(_n_bytes: int) -> bytes:
            raise RuntimeError(PATIENT)

        here = node(member_in(tmp_path), broken)
        refusal(here.ask(training_task()))
        assert ledger_of(here.member).debits() == ()
        assert here.memory() == {}

    def test_that_an_update_is_not_finite_is_paid_for_like_the_update(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The server sets the model, and so what it would ask of the records with a refusal that is free."""
        monkeypatch.setattr(clients.app, "contribute", not_finite)
        here = node(member_in(tmp_path))
        assert "not finite" in refusal(here.ask(training_task()))
        assert len(ledger_of(here.member).debits()) == 1

    def test_the_budget_ends_with_the_attempts_that_were_planned(self, tmp_path: Path) -> None:
        keys = Keys()
        here = node(member_in(tmp_path, site(private=plan(attempts=2))), keys)
        for round_number in (1, 2):
            here.contribution(training_task(round_number))
        drawn, memory = len(keys.drawn), here.memory()
        reason = refusal(here.ask(training_task(3)))
        assert reason == "6 of 6 executions are spent; no room for 3"
        assert ledger_of(here.member).executed(VA) == 6
        assert len(keys.drawn) == drawn, "no noisy step without room for it"
        assert here.memory() == memory

    def test_two_attempts_at_once_cannot_both_take_the_last_place(self, tmp_path: Path) -> None:
        class Raced(Ledger):
            def check(self, debits: Sequence[Debit]) -> None:
                super().check(debits)
                super().reserve([replace(debit, round=9) for debit in debits])  # another process, after the look

        member = member_in(tmp_path, site(private=plan(attempts=1)), Raced)
        here = node(member)
        assert "no room" in refusal(here.ask(training_task()))
        assert here.memory() == {}

    def test_what_is_spent_stays_spent_when_the_process_starts_again(self, tmp_path: Path) -> None:
        one = site(private=plan(attempts=1))
        node(member_in(tmp_path, one)).contribution(training_task(1))
        again = node(member_in(tmp_path, one))
        with pytest.raises(BudgetExhaustedError):
            attempt(again.member, training_task(2).encode(), again.context.state, Keys())

    def test_an_attempt_whose_memory_was_lost_is_not_released_twice(self, tmp_path: Path) -> None:
        node(member_in(tmp_path)).contribution(training_task(1, 1))
        forgetful = node(member_in(tmp_path))
        assert "already debited" in refusal(forgetful.ask(training_task(1, 1)))
        assert forgetful.memory() == {}

    def test_nothing_private_leaves_without_a_ledger(self, tmp_path: Path) -> None:
        here = node(replace(member_in(tmp_path), account=None))
        assert "no ledger" in refusal(here.ask(training_task()))
        assert here.memory() == {}

    def test_without_privacy_there_is_nothing_to_debit(self, tmp_path: Path) -> None:
        here = node(member_in(tmp_path, site()))
        here.contribution(training_task())
        assert ledger_of(here.member).debits() == ()
        node(Member(site(), None, JOB, by_itself(site()), admit=let_pass)).contribution(training_task())


class TestRefusals:
    """Everything the server may get wrong; the site says so, spends nothing and remembers nothing."""

    def refused(self, folder: Path, data: Any, one: Site | None = None) -> str:
        keys = Keys()
        here = node(member_in(folder, one), keys)
        here.contribution(training_task(1, 2, **control_of(here.member.site)))
        drawn, memory = len(keys.drawn), here.memory()
        reason = refusal(here.app(question(TRAIN, data), here.context))
        assert len(ledger_of(here.member).debits()) == 1
        assert (len(keys.drawn), here.memory()) == (drawn, memory)
        assert reason.isprintable()
        return reason

    def test_other_settings(self, tmp_path: Path) -> None:
        reason = self.refused(tmp_path, training_task(2, job="others").encode())
        assert reason == "va agreed to other settings than the server proposes"

    @pytest.mark.parametrize("done", [(1, 2), (1, 1)])
    def test_an_attempt_that_was_answered_or_is_older(self, tmp_path: Path, done: tuple[int, int]) -> None:
        assert self.refused(tmp_path, training_task(*done).encode()) == "va has answered round {} attempt {}".format(
            *done
        )

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (None, "the message carries no task"),
            ("text", "the message carries no task"),
            (b"", "the message is not CBOR"),
            (b"\xff\x00", "the message is not CBOR"),
            (cbor2.dumps(["task"], canonical=True), "the message is not a version 1 'task'"),
            (Hello(VA, 3).encode(), "the message is not a version 1 'task'"),
            (training_task(0).encode(), "rounds and attempts are numbered from 1"),
        ],
    )
    def test_a_message_that_is_no_task(self, tmp_path: Path, data: Any, reason: str) -> None:
        assert self.refused(tmp_path, data) == reason

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({}, "va was sent other arrays than model"),
            ({"model": START, "control": START}, "va was sent other arrays than model"),
            ({"weights": START}, "va was sent other arrays than model"),
            ({"model": vector(1, 2, np.nan, 4)}, "va was sent a model that is not finite"),
            ({"model": vector(1, 2, np.inf, 4)}, "va was sent a model that is not finite"),
        ],
    )
    def test_arrays_that_are_not_the_models(self, tmp_path: Path, arrays: Mapping[str, Vector], reason: str) -> None:
        assert self.refused(tmp_path, training_task(2, arrays=arrays).encode()) == reason

    @pytest.mark.parametrize(
        ("arrays", "reason"),
        [
            ({"model": START}, "va was sent other arrays than control, model"),
            ({"model": START, "control": vector(1, 2)}, "va was sent a model of another size than its own"),
            ({"model": START, "control": vector(1, 2, 3, np.nan)}, "va was sent a model that is not finite"),
        ],
    )
    def test_scaffolds_arrays(self, tmp_path: Path, arrays: Mapping[str, Vector], reason: str) -> None:
        one = site(algorithm=Scaffold(), private=plan())
        assert self.refused(tmp_path, training_task(2, arrays=arrays).encode(), one) == reason

    @pytest.mark.parametrize("size", [0, 3, 5])
    def test_a_model_of_another_size(self, tmp_path: Path, size: int) -> None:
        self.refused(tmp_path, training_task(2, arrays={"model": np.zeros(size, dtype=np.float32)}).encode())


def control_of(one: Site) -> dict[str, Any]:
    """What a task for this site must bring beyond the model."""
    if not one.algorithm.local.control:
        return {}
    return {"arrays": {"model": START, "control": np.zeros_like(START)}}


class TestSecrets:
    """The text of an error that nobody foresaw may quote a record."""

    def whole(self, reply: Message) -> bytes:
        """Everything that goes over the wire."""
        return reply.deflate() + repr(reply).encode()

    def check(self, reply: Message, caplog: pytest.LogCaptureFixture) -> None:
        assert refusal(reply) == "the site failed; its own log says why"
        assert b"Anna" not in self.whole(reply)
        assert b"cholesterol" not in self.whole(reply)
        assert PATIENT in caplog.text, "whoever runs the site must be able to find out"

    @pytest.mark.parametrize("kind", [HELLO, TRAIN])
    def test_of_finding_the_sites_own_data(self, kind: str, caplog: pytest.LogCaptureFixture) -> None:
        def member_of(_context: Context, _invitation: bytes) -> Member:
            raise KeyError(PATIENT)

        context = invited()
        with caplog.at_level(logging.ERROR):
            self.check(build(member_of)(question(kind, training_task().encode()), context), caplog)

    def test_of_training(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        def broken(_n_bytes: int) -> bytes:
            raise ValueError(PATIENT)

        with caplog.at_level(logging.ERROR):
            self.check(node(member_in(tmp_path), broken).ask(training_task()), caplog)

    def test_of_the_ledger(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(Ledger):
            def check(self, debits: Sequence[Debit]) -> None:
                raise OSError(f"{PATIENT} {debits}")

        member = member_in(tmp_path, ledger=Broken)
        with caplog.at_level(logging.ERROR):
            self.check(node(member).ask(training_task()), caplog)


def test_attempt_raises_where_the_app_answers(tmp_path: Path) -> None:
    state = RecordDict()
    with pytest.raises(RemoteProtocolError, match="other settings"):
        attempt(member_in(tmp_path), training_task(job="others").encode(), state, Keys())
    assert not state
