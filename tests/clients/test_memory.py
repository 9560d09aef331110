"""What a site remembers between rounds: Scaffold's control variate moves only with what the server says it summed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from clients.app import Member
from clients.memory import Memory, keep_invitation
from clients.run_store import RunStore
from clients.work import contribute
from strategies.contribution import Vector
from strategies.messages import RoundTask
from strategies.scaffold import Scaffold
from tests.clients.example import HEAD, MLP, START, by_itself, site, vector
from tests.clients.node import JOB, Node, let_pass, member_in, node, refusal, training_task


class TestMemory:
    """Scaffold's control variate moves only with contributions that the server says it summed."""

    common = vector(0.2, -0.1, 0.0, 0.3)

    def task(self, round_number: int, accepted: tuple[int, int], attempt_number: int = 1) -> RoundTask:
        return training_task(
            round_number, attempt_number, accepted=accepted, arrays={"model": START, "control": self.common}
        )

    def scaffold(self, folder: Path) -> Node:
        return node(member_in(folder, site(algorithm=Scaffold())))

    def expected(self, round_number: int, control: Vector | None) -> tuple[Mapping[str, Vector], Vector | None]:
        arrays = {"model": START, "control": self.common}
        kept = {} if control is None else {"control": control}
        work = contribute(site(algorithm=Scaffold()), arrays, round_number=round_number, kept=kept)
        return work.contribution.arrays, work.kept["control"]

    def same(self, sent: Mapping[str, Vector], expected: Mapping[str, Vector]) -> bool:
        return all(np.array_equal(sent[name], expected[name]) for name in ("update", "control"))

    def test_an_accepted_contribution_moves_it(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        first, control = self.expected(1, None)
        second, control_after = self.expected(2, control)
        third, _ = self.expected(3, control_after)
        assert self.same(here.contribution(self.task(1, (0, 0))), first)
        assert self.same(here.contribution(self.task(2, (1, 1))), second)
        assert self.same(here.contribution(self.task(3, (2, 1))), third)
        assert not self.same(second, self.expected(2, None)[0]), "or the test would prove nothing"

    def test_one_that_was_not_accepted_leaves_it_and_is_forgotten(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        assert self.same(here.contribution(self.task(2, (0, 0))), self.expected(2, None)[0])
        # Round 1 was lost and round 2 was summed: only round 2's control variate counts.
        control = self.expected(2, None)[1]
        assert self.same(here.contribution(self.task(3, (2, 1))), self.expected(3, control)[0])

    def test_a_lost_attempt_after_an_accepted_one_goes_back_to_that_one(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        control = self.expected(1, None)[1]
        here.contribution(self.task(2, (1, 1)))
        here.contribution(self.task(2, (1, 1), attempt_number=2))
        assert self.same(here.contribution(self.task(3, (1, 1))), self.expected(3, control)[0])

    def test_a_repetition_accepts_the_attempt_that_was_summed(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        here.contribution(self.task(1, (0, 0), attempt_number=2))
        control = self.expected(1, None)[1]
        assert self.same(here.contribution(self.task(2, (1, 2))), self.expected(2, control)[0])

    def test_a_server_that_accepts_what_was_never_sent_changes_nothing(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        assert self.same(here.contribution(self.task(2, (9, 9))), self.expected(2, None)[0])

    def test_a_refused_task_keeps_what_is_pending(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        memory = here.memory()
        refusal(here.ask(replace(self.task(2, (1, 1)), job="others")))
        assert here.memory() == memory
        control = self.expected(1, None)[1]
        assert self.same(here.contribution(self.task(2, (1, 1))), self.expected(2, control)[0])

    def test_only_public_numbers_and_own_control_variates_are_remembered(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        [remembered] = here.memory().values()
        assert set(remembered) == {"round", "attempt", "pending.control"}
        assert (remembered["round"], remembered["attempt"]) == (1, 1)

    def test_memory_survives_flowers_serialisation(self, tmp_path: Path) -> None:
        here = self.scaffold(tmp_path)
        here.contribution(self.task(1, (0, 0)))
        state = RecordDict()
        for name, record in here.context.state.items():
            state[name] = ConfigRecord.inflate(record.deflate())
        here.context.state = state
        control = self.expected(1, None)[1]
        assert self.same(here.contribution(self.task(2, (1, 1))), self.expected(2, control)[0])


class TestPrivateHead:
    """Private parameters go with the shared ones of the same attempt: summed, or forgotten together."""

    def test_it_moves_only_with_what_was_summed(self) -> None:
        one = site(model=MLP, part=HEAD)
        shared = one.initial[HEAD.slots]

        def sent(here: Node, number: int, accepted: tuple[int, int], attempt_number: int = 1) -> Vector:
            task = training_task(number, attempt_number, accepted=accepted, arrays={"model": shared})
            return here.contribution(task)["update"]

        def expected(number: int, kept: Mapping[str, Vector]) -> tuple[Vector, Mapping[str, Vector]]:
            work = contribute(one, {"model": shared}, round_number=number, kept=kept)
            return work.contribution.arrays["update"], work.kept

        here = node(Member(one, None, JOB, by_itself(one), admit=let_pass))
        first, kept = expected(1, {})
        np.testing.assert_array_equal(sent(here, 1, (0, 0)), first)
        np.testing.assert_array_equal(sent(here, 2, (1, 1)), expected(2, kept)[0])
        assert (expected(2, kept)[0] != expected(2, {})[0]).any(), "or the test would prove nothing"
        # Round 2's first attempt was lost: its head is forgotten with it.
        np.testing.assert_array_equal(sent(here, 2, (1, 1), 2), expected(2, kept)[0])
        np.testing.assert_array_equal(sent(here, 3, (2, 2)), expected(3, expected(2, kept)[1])[0])


class TestOneNumberForTwoRuns:
    """Flower's numbers are the server's word: one that stands for a second run brings nothing of the first along."""

    def test_memory_of_another_invitation_is_dropped(self) -> None:
        state = RecordDict()
        keep_invitation(state, b"to one run")
        Memory((3, 1), {"control": np.ones(2, np.float32)}).write(state)
        keep_invitation(state, b"to one run")
        assert Memory.read(state).last == (3, 1)
        keep_invitation(state, b"to another")
        assert Memory.read(state) == Memory()

    def test_a_number_finds_the_run_that_had_it_last(self, tmp_path: Path) -> None:
        first, second = RunStore(tmp_path, "first"), RunStore(tmp_path, "second")
        first.admit(b"one", 10, 7)
        second.admit(b"two", 10, 7)
        found = RunStore.of_node(tmp_path, 7)
        assert found is not None
        assert found.name == "second"
