"""Every state of the checkpoint file, and of the disk, that must end in one plain line and lose nothing."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from privacy.errors import ConfigError
from privacy.store.database import Database
from server.checkpoints import CHECKPOINT_FILE
from server.lock import LOCK_FILE
from server.rounds import Schedule, Standing
from strategies.adaptive import FedYogi
from strategies.fed_avg import FedAvg
from tests.server.resuming import LINES, Fuse, Sites, bits, journal_in, live, plain, read, record_of

ONE, TWO = Schedule(1, 0), Schedule(2, 0)


def change(statement: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with sqlite3.connect(path, isolation_level=None) as connection:
            connection.executescript(statement)
        connection.close()

    return damage


def overwritten(path: Path) -> None:
    whole(path)
    data = bytearray(path.read_bytes())
    data[:16] = b"no database now!"
    path.write_bytes(data)


def no_database(path: Path) -> None:
    path.write_bytes(b"hello\n" * 1000)


def whole(path: Path) -> None:
    """Brings everything from the write-ahead log into the file."""
    change("PRAGMA wal_checkpoint(TRUNCATE)")(path)


def cut(path: Path) -> None:
    whole(path)
    os.truncate(path, path.stat().st_size // 2)


def foreign(path: Path) -> None:
    path.unlink()
    Database.create(path)


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "not there": (lambda path: path.unlink(), "there is no run to resume"),
    "empty": (lambda path: os.truncate(path, 0), "is no checkpoint of version 1"),
    "no database": (no_database, "cannot be read"),
    "header overwritten": (overwritten, "cannot be read"),
    "cut short": (cut, "cannot be read|is damaged"),
    "a ledger": (foreign, "is no checkpoint of version 1"),
    "a newer version": (change("PRAGMA user_version = 2"), "is no checkpoint of version 1"),
    "another table": (change("CREATE TABLE more (x)"), "is no checkpoint of version 1"),
    "a round changed": (
        change("UPDATE commits SET body = replace(body, '\"retries\":0', '\"retries\":9') WHERE round = 1"),
        "is damaged at round 1",
    ),
    "a round taken out": (change("DELETE FROM commits WHERE round = 1"), "is damaged at round 1"),
    "the last round taken off": (change("DELETE FROM commits WHERE round = 2"), "model is not what was written"),
    "the model changed": (change("UPDATE arrays SET data = zeroblob(length(data))"), "model is not what was written"),
    "no model": (change("DELETE FROM arrays"), "it holds no FedAvgState"),
    "one array more": (change("INSERT INTO arrays VALUES ('x', x'00')"), "it holds no FedAvgState"),
    "nothing begun": (change("DELETE FROM commits"), "it says nothing of a run"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_or_foreign_file_is_one_plain_line(kind: str, done: Path) -> None:
    damage, reason = DAMAGE[kind]
    for path in done.glob(f"{CHECKPOINT_FILE}-*"):
        path.unlink()
    damage(done / CHECKPOINT_FILE)
    lines = (done / LINES).read_bytes()
    with pytest.raises(ConfigError, match=reason) as caught:
        read(done)
    plain(caught.value)
    assert (done / LINES).read_bytes() == lines  # nothing was cut on its word


def test_every_flipped_byte_is_found_or_does_not_matter(done: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole(done / CHECKPOINT_FILE)
    good, data = read(done), (done / CHECKPOINT_FILE).read_bytes()
    other = tmp_path_factory.mktemp("flipped")
    found = 0
    drawn = np.random.default_rng(3).choice(len(data), 60, replace=False)
    for place in drawn:
        flipped = bytearray(data)
        flipped[place] ^= 0x41
        for path in other.iterdir():
            path.unlink()
        (other / CHECKPOINT_FILE).write_bytes(flipped)
        shutil.copy(done / LINES, other / LINES)
        try:
            back = read(other)
        except ConfigError as error:
            plain(error)
            found += 1
            continue
        assert (back.records, back.stopped) == (good.records, good.stopped)
        assert back.standing is not None
        assert good.standing is not None
        assert bits(back.standing.state) == bits(good.standing.state)
    assert found > 0


def test_flipped_attempts_are_found(done: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No hash is over them: SQLite's own check compares the table with its index."""
    with journal_in(done, resume=True) as journal:
        journal.begun(3, 1)
    whole(done / CHECKPOINT_FILE)
    data, other = (done / CHECKPOINT_FILE).read_bytes(), tmp_path_factory.mktemp("flipped")
    with sqlite3.connect(done / CHECKPOINT_FILE) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        ends = [
            size * page for (page,) in connection.execute("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'begun'")
        ]
    connection.close()
    assert len(ends) == 2
    for place in (end - back for end in ends for back in range(1, 20)):  # the rows stand at the end of their page
        flipped = bytearray(data)
        flipped[place] ^= 0x02
        for path in other.iterdir():
            path.unlink()
        (other / CHECKPOINT_FILE).write_bytes(flipped)
        shutil.copy(done / LINES, other / LINES)
        with contextlib.suppress(ConfigError):
            assert read(other).begun == 1


def test_a_file_that_a_crash_left_half_made_is_made_anew(done: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Above all a journal that would undo in the new file what the old one had half done."""
    folder = tmp_path_factory.mktemp("new")
    draft = folder / "checkpoint.part"
    whole(done / CHECKPOINT_FILE)
    shutil.copy(done / CHECKPOINT_FILE, draft)
    hot = "PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL; PRAGMA cache_size = 1; BEGIN; DELETE FROM arrays;"
    hot += "INSERT INTO arrays SELECT printf('%d', value), zeroblob(4000) FROM json_each('[1,2,3,4,5,6,7,8,9]');"
    code = f"import os, sqlite3; sqlite3.connect({str(draft)!r}).executescript({hot!r}); os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Path(f"{draft}-journal").exists()
    live(folder, Sites(), FedAvg(), ONE)
    assert sorted(path.name for path in folder.iterdir()) == [CHECKPOINT_FILE, LINES, LOCK_FILE]
    assert [record.round for record in read(folder).records] == [1]
    assert (folder / CHECKPOINT_FILE).stat().st_mode & 0o777 == 0o600


@pytest.fixture
def fill() -> Iterator[Callable[[int], None]]:
    """Makes the disk take no file beyond so many bytes, until the test is over or 0 is given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    signal.signal(signal.SIGXFSZ, ignored)


class TestFullDisk:
    """A round that could not be written is not done, nobody is told so, and what was written before is all there."""

    @pytest.mark.parametrize("step", [1, 8], ids=["before the attempt", "before the commit"])
    def test_the_round_is_not_done_and_goes_on_later(
        self, step: int, tmp_path: Path, fill: Callable[[int], None]
    ) -> None:
        (tmp_path / "whole").mkdir()
        expected = live(tmp_path / "whole", Sites(), FedYogi(), TWO)
        sites = Sites()
        with pytest.raises(ConfigError, match=f"{CHECKPOINT_FILE} cannot be") as caught:
            live(tmp_path, sites, FedYogi(), Schedule(2, 1), fuse=Fuse(11 + step, lambda: fill(4096)))
        plain(caught.value)
        fill(0)
        assert (tmp_path / LINES).read_text() == "1 done\n"
        assert sites.asked == [(1, 1), (2, 1)][: 1 if step == 1 else 2]
        again = live(tmp_path, sites, FedYogi(), Schedule(2, 1), resume=True)
        assert [record.attempts for record in again.records] == [1, 1 if step == 1 else 2]
        assert bits(again.state) == bits(expected.state)

    def test_a_commit_that_ran_full_half_way_leaves_the_one_before(
        self, tmp_path: Path, fill: Callable[[int], None]
    ) -> None:
        start = FedYogi().init(np.ones(200_000, np.float32))  # its line fits the disk, its arrays do not
        with journal_in(tmp_path, resume=False) as journal:
            journal.committed(record_of(1), Standing(1, start, {}, 0))
            fill(1_000_000)
            with pytest.raises(ConfigError, match="cannot be written") as caught:
                journal.committed(record_of(2), Standing(2, replace(start, model=start.model * 2), {}, 0))
            plain(caught.value)
            fill(0)
            after = journal.resumed(start).standing
        assert after is not None
        assert (after.round, bits(after.state)) == (1, bits(start))

    def test_a_run_that_cannot_be_written_does_not_begin(self, tmp_path: Path, fill: Callable[[int], None]) -> None:
        sites = Sites()
        fill(4096)
        with pytest.raises(ConfigError) as caught:
            live(tmp_path, sites, FedAvg(), ONE)
        fill(0)
        plain(caught.value)
        assert sites.asked == []
        assert live(tmp_path, sites, FedAvg(), ONE).records[-1].round == 1
