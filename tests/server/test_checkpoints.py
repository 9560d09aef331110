"""The checkpoint file: what it gives back, to whom, and what it does to the other files of a run."""

import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from privacy.errors import ConfigError, VerificationError
from privacy.store.ledger import Ledger
from server.checkpoints import Checkpoints, Surroundings
from server.exchange import Egress
from server.lock import LOCK_FILE, alone_in
from server.rounds import Resumed, RoundRecord, Standing
from strategies.adaptive import FedAdam
from strategies.fed_avg import FedAvg
from strategies.task import SiteId
from tests.privacy.store.example import CHEAP, HEARTS, debit
from tests.server.resuming import JOB, LINES, START, around, bits, journal_in, plain, read, record_of

A, B = SiteId("a"), SiteId("b")


@dataclass(frozen=True, eq=False)
class Odd:
    """A state with everything that a state may have."""

    model: Any
    table: Any
    steps: int
    rate: float
    warm: bool


def test_everything_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    tiny = np.nextafter(0.1, 1)
    state = Odd(np.array([tiny, -0.0, 1e-310]), np.arange(6, dtype=np.float32).reshape(2, 3), 7, tiny, warm=True)
    missing = MappingProxyType({B: "said: ‘no’ \U0001f600"})
    record = RoundRecord(1, 3, (A,), missing, skipped=True, seconds=0.1 + 0.2, still=(0, 4))
    standing = Standing(1, state, {A: (1, 3), B: (0, 0)}, 2, {B: "no budget"}, {A: Egress(1, 2, 3)})
    with journal_in(tmp_path, resume=False) as journal:
        assert (journal.run, journal.job) == ("run 1", JOB)
        journal.begun(1, 3)
        journal.committed(record, standing)
        journal.begun(2, 1)
        journal.begun(2, 2)
    with journal_in(tmp_path, resume=True) as journal:
        assert journal.run == "run 1"
        resumed = journal.resumed(Odd(np.ones(3), np.ones((2, 3), np.float32), 0, 0.0, warm=False))
    back = resumed.standing
    assert back is not None
    assert bits(back.state) == bits(state)
    assert (type(back.state), back.state.table.shape, back.state.table.dtype) == (Odd, (2, 3), np.float32)
    assert not back.state.model.flags.writeable
    assert (back.accepted, back.retries, back.spent, back.egress) == (
        standing.accepted, 2, standing.spent, standing.egress,
    )  # fmt: skip
    assert (resumed.records, resumed.begun, resumed.stopped) == ((record,), 2, "")


def test_a_state_that_cannot_be_written_down_is_the_programmers_to_know(tmp_path: Path) -> None:
    with journal_in(tmp_path, resume=False) as journal, pytest.raises(TypeError, match=r"Odd\.model is neither"):
        journal.committed(record_of(1), Standing(1, Odd("x", "y", 1, 1.0, warm=True), {}, 0))
    assert read(tmp_path).standing is None


def test_rounds_are_committed_in_order_and_attempts_begun_once(done: Path) -> None:
    with journal_in(done, resume=True) as journal:
        for number in (1, 2, 4):
            with pytest.raises(ConfigError, match="cannot be written"):
                journal.committed(record_of(number), Standing(number, FedAvg().init(START), {}, 0))
        with pytest.raises(ConfigError, match="cannot be written"):
            journal.begun(2, 1)
    assert [record.round for record in read(done).records] == [1, 2]


class TestOtherFiles:
    """What a run appends to is cut to what it was at the last commit."""

    def test_lines_after_the_last_commit_go(self, done: Path) -> None:
        assert (done / LINES).read_text() == "1 done\n2 done\n"
        with (done / LINES).open("a") as file:
            file.write("3 do")
        read(done)
        assert (done / LINES).read_text() == "1 done\n"  # the driver tells the last round again

    def test_lines_from_before_the_first_round_stay(self, tmp_path: Path) -> None:
        (tmp_path / LINES).write_text("header\n")
        with journal_in(tmp_path, resume=False):
            (tmp_path / LINES).write_text("header\nmore")
        read(tmp_path)
        assert (tmp_path / LINES).read_text() == "header\n"

    @pytest.mark.parametrize("left", [None, b"", b"1 done"])
    def test_a_file_that_lost_lines_is_not_passed_over(self, done: Path, left: bytes | None) -> None:
        (done / LINES).unlink() if left is None else (done / LINES).write_bytes(left)
        with pytest.raises(ConfigError, match="lost lines that the last checkpoint counts on") as caught:
            read(done)
        plain(caught.value)

    def test_a_run_has_the_same_files_to_its_end(self, done: Path) -> None:
        with (
            Checkpoints.open(Surroundings(done, (LINES, "more")), job=JOB) as journal,
            pytest.raises(ConfigError, match="begun with other files"),
        ):
            journal.resumed(FedAvg().init(START))


class TestLedger:
    """The head of the server's ledger is in every commit."""

    def surroundings(self, folder: Path) -> Surroundings:
        path = folder / "ledger.db"
        if not path.exists():
            Ledger.create(path).declare(HEARTS)
        return Surroundings(folder, (), Ledger(path))

    def commit(self, folder: Path) -> None:
        beside = self.surroundings(folder)
        assert beside.ledger is not None
        with Checkpoints.create(beside, job=JOB, run="run") as journal:
            beside.ledger.reserve([debit(1, event=CHEAP)])
            journal.committed(record_of(1), Standing(1, FedAvg().init(START), {}, 0))

    def resumed(self, folder: Path) -> Resumed:
        with Checkpoints.open(self.surroundings(folder), job=JOB) as journal:
            return journal.resumed(FedAvg().init(START))

    def test_debits_of_the_half_done_round_are_no_trouble(self, tmp_path: Path) -> None:
        self.commit(tmp_path)
        Ledger(tmp_path / "ledger.db").reserve([debit(2, event=CHEAP)])
        assert len(self.resumed(tmp_path).records) == 1

    def test_an_older_copy_is_found(self, tmp_path: Path) -> None:
        old = tmp_path / "old.db"
        self.surroundings(tmp_path)
        with (
            sqlite3.connect(tmp_path / "ledger.db") as source,
            sqlite3.connect(old) as copy,
        ):
            source.backup(copy)
        source.close()
        copy.close()
        self.commit(tmp_path)
        for path in tmp_path.glob("ledger.db-*"):
            path.unlink()
        old.rename(tmp_path / "ledger.db")
        sqlite3.connect(tmp_path / "ledger.db").execute("PRAGMA journal_mode = WAL").connection.close()
        with pytest.raises(VerificationError, match="a witness saw entry") as caught:
            self.resumed(tmp_path)
        plain(caught.value)

    def test_a_run_with_a_ledger_does_not_go_on_without(self, tmp_path: Path) -> None:
        self.commit(tmp_path)
        with (
            Checkpoints.open(Surroundings(tmp_path), job=JOB) as journal,
            pytest.raises(ConfigError, match="another ledger"),
        ):
            journal.resumed(FedAvg().init(START))


@pytest.mark.parametrize("other", ["another job", "another algorithm", "another model"])
def test_a_run_goes_on_as_the_same_job_only(other: str, done: Path) -> None:
    job = "cd" * 32 if other == "another job" else JOB
    template: Any = FedAvg().init(np.ones(4, np.float32) if other == "another model" else START)
    if other == "another algorithm":
        template = FedAdam().init(START)
    with (
        pytest.raises(ConfigError, match=r"another job: abababab|holds no AdaptiveState|another shape") as caught,
        Checkpoints.open(around(done), job=job) as journal,
    ):
        journal.resumed(template)
    plain(caught.value)


def test_a_folder_holds_one_run(done: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is a run in .* already"), journal_in(done, resume=False):
        pass
    assert len(read(done).records) == 2


class TestTwoDrivers:
    def test_the_second_gets_one_plain_line(self, done: Path) -> None:
        code = f"from tests.server.test_checkpoints import read; from pathlib import Path; read(Path({str(done)!r}))"
        with journal_in(done, resume=True):
            second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
            with pytest.raises(ConfigError, match="another process is driving the run in") as caught:
                read(done)
        plain(caught.value)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-1].startswith("privacy.errors.ConfigError: another process is driving")
        assert len(read(done).records) == 2

    def test_nor_can_it_make_a_run_beside_one_that_is_being_made(self, tmp_path: Path) -> None:
        with (
            journal_in(tmp_path, resume=False),
            pytest.raises(ConfigError, match="another process"),
            journal_in(tmp_path, resume=False),
        ):
            pass

    def test_the_lock_goes_with_whoever_held_it(self, done: Path) -> None:
        """However it ended: here an error."""
        with pytest.raises(KeyError), journal_in(done, resume=True):
            raise KeyError
        assert (done / LOCK_FILE).exists()
        read(done)

    def test_a_folder_that_is_not_there_or_a_link_is_one_plain_line(self, tmp_path: Path) -> None:
        (tmp_path / LOCK_FILE).symlink_to(tmp_path / "elsewhere")
        for folder in (tmp_path, tmp_path / "none"):
            with pytest.raises(ConfigError, match="cannot be written") as caught, alone_in(folder):
                pass
            plain(caught.value)
        assert not (tmp_path / "elsewhere").exists()
