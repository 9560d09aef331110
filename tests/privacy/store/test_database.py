"""A file that is damaged, full, read-only, of another version or something else: one plain line, and nothing leaves."""

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from privacy.errors import ConfigError, FederationError
from privacy.secagg.effects import Attempt
from privacy.store.admissions import Admissions
from privacy.store.database import SCHEMA, Database
from privacy.store.ledger import Ledger
from tests.privacy.store.example import CHEAP, debit, ledger_in

NOBODY = 65534


def plain(error: FederationError) -> None:
    """What a person sees: one or two short lines that say which file."""
    assert 1 <= len(error.lines()) <= 2
    assert all(line.isprintable() for line in error.lines())


def in_child(work: Callable[[], None]) -> str:
    """Runs ``work`` in a forked process and returns the message of the error that it ended with, or nothing."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            try:
                work()
            except FederationError as error:
                plain(error)
                os.write(send, str(error).encode())
            except BaseException as error:  # noqa: BLE001 - whatever else comes out is what the test must see
                os.write(send, repr(error).encode())
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that another user may enter; pytest's own are closed."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


class TestOpening:
    def test_a_missing_ledger_is_never_made_in_passing(self, tmp_path: Path) -> None:
        Admissions(tmp_path / "ledger.db")
        with pytest.raises(ConfigError, match="holds no ledger"):
            Ledger(tmp_path / "ledger.db")
        with pytest.raises(ConfigError, match="there is no database"):
            Ledger(tmp_path / "absent.db")
        assert not (tmp_path / "absent.db").exists()
        Ledger.create(tmp_path / "ledger.db")
        with pytest.raises(ConfigError, match="there is a ledger"):
            Ledger.create(tmp_path / "ledger.db")

    def test_a_place_that_cannot_be_written(self, tmp_path: Path) -> None:
        for make in (Admissions, Ledger.create):
            with pytest.raises(ConfigError, match="cannot be made") as info:
                make(tmp_path / "nowhere" / "ledger.db")
            plain(info.value)

    @pytest.mark.parametrize("version", [0, 2])
    def test_another_version(self, tmp_path: Path, version: int) -> None:
        ledger_in(tmp_path)
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        before = (tmp_path / "ledger.db").read_bytes()
        for opened in (Ledger, Admissions, Ledger.create):
            with pytest.raises(ConfigError, match="an older version" if version == 0 else "a newer version") as info:
                opened(tmp_path / "ledger.db")
            plain(info.value)
        assert (tmp_path / "ledger.db").read_bytes() == before

    def test_a_database_of_somebody_else(self, tmp_path: Path) -> None:
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            connection.execute("CREATE TABLE debits (seq INTEGER PRIMARY KEY)")
        for opened in (Ledger, Admissions, Ledger.create):
            with pytest.raises(ConfigError, match="something else"):
                opened(tmp_path / "ledger.db")

    def test_a_rule_that_was_dropped(self, tmp_path: Path) -> None:
        ledger_in(tmp_path)
        with sqlite3.connect(tmp_path / "ledger.db") as connection:
            connection.execute("DROP TRIGGER entries_are_final")
        with pytest.raises(ConfigError, match="changed by hand"):
            Ledger(tmp_path / "ledger.db")

    def test_the_rules_are_strict_and_final(self, tmp_path: Path) -> None:
        ledger_in(tmp_path)
        with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
            for statement in ("DELETE FROM entries", "UPDATE entries SET body = ''"):
                with pytest.raises(sqlite3.IntegrityError, match="final"):
                    connection.execute(statement)
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute("INSERT INTO entries VALUES (99, 1.5, x'00')")
        assert all("STRICT" in statement for statement in SCHEMA if "TABLE" in statement)

    @pytest.mark.parametrize("content", [b"", b"not a database, but long enough to be looked at " * 90])
    def test_a_file_that_is_no_database(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "ledger.db").write_bytes(content)
        with pytest.raises(ConfigError) as info:
            Ledger(tmp_path / "ledger.db")
        plain(info.value)

    def test_many_may_make_it_at_once(self, tmp_path: Path) -> None:
        for number in range(5):
            path = tmp_path / f"{number}.db"
            children = []
            for site in range(6):
                child = os.fork()
                if child == 0:
                    try:
                        Admissions(path).admit(str(site), Attempt(bytes(16), 1, 1))
                    except BaseException:  # noqa: BLE001 - any failure is one
                        os._exit(1)
                    os._exit(0)
                children.append(child)
            assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 6
            assert [Admissions(path).last(str(site), bytes(16)) for site in range(6)] == [(1, 1)] * 6


class TestDamage:
    """Damage either is found at opening, or touched nothing that counts."""

    def survives(self, path: Path, data: bytes, entries: list[object]) -> bool:
        path.write_bytes(data)
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        try:
            with Ledger(path).reading() as books:
                assert [*books.lines.values(), books.head, books.assets] == entries
        except FederationError as error:
            plain(error)
            return False
        return True

    def test_flipped_and_lost_bytes(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(number, event=CHEAP) for number in range(30)])
        with ledger.reading() as books:
            entries: list[object] = [*books.lines.values(), books.head, books.assets]
        good = (tmp_path / "ledger.db").read_bytes()
        drawn = Random(5)  # noqa: S311 - where to break it, not a secret
        found = 0
        for _ in range(200):
            data = bytearray(good)
            data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
            found += not self.survives(tmp_path / "ledger.db", bytes(data), entries)
        assert found > 50
        for size in [*range(0, len(good), 4096), *(drawn.randrange(len(good)) for _ in range(20))]:
            assert not self.survives(tmp_path / "ledger.db", good[:size], entries), size
        assert self.survives(tmp_path / "ledger.db", good, entries)

    def test_a_changed_entry_whose_page_is_sound(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        ledger.reserve([debit(1), debit(2)])
        for change in (
            "UPDATE entries SET body = replace(body, '\"count\":3', '\"count\":1') WHERE seq = 3",
            "DELETE FROM entries WHERE seq = 3",
            "DELETE FROM entries WHERE seq = 2",
            "UPDATE entries SET seq = seq + 10 WHERE seq = 4",
            "UPDATE entries SET hash = zeroblob(32) WHERE seq = 4",
        ):
            copy = tmp_path / "copy.db"
            shutil.copy(tmp_path / "ledger.db", copy)
            with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
                for trigger in SCHEMA[1:3]:
                    connection.execute(f"DROP TRIGGER {trigger.split()[2]}")
                connection.execute(change)
                for trigger in SCHEMA[1:3]:
                    connection.execute(trigger)
            with pytest.raises(FederationError, match="breaks the chain") as info:
                Ledger(copy)
            plain(info.value)


class TestWriting:
    def test_on_a_full_disk_nothing_is_reserved_and_nothing_is_lost(self, tmp_path: Path) -> None:
        ledger = ledger_in(tmp_path)
        keeper = sqlite3.connect(tmp_path / "ledger.db")  # somebody who reads: the write-ahead log grows
        keeper.execute("SELECT count(*) FROM entries").fetchone()
        acknowledged = tmp_path / "acknowledged"

        def until_full() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            here = Ledger(tmp_path / "ledger.db")
            for number in range(100):
                here.reserve([debit(number, event=CHEAP)])
                acknowledged.write_text(str(number + 1))

        assert "cannot be written" in in_child(until_full)
        made = int(acknowledged.read_text())
        assert 1 <= made < 100
        keeper.close()
        assert ledger.debits() == tuple(debit(number, event=CHEAP) for number in range(made))
        ledger.reserve([debit(made, event=CHEAP)])
        assert len(Ledger(tmp_path / "ledger.db").debits()) == made + 1

    def test_a_database_at_its_largest_size(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger, many = ledger_in(tmp_path), [debit(number, event=CHEAP) for number in range(40)]
        before, connect = ledger.head(), sqlite3.connect

        def full(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection: sqlite3.Connection = connect(*arguments, **options)
            connection.execute("PRAGMA max_page_count = 1")
            return connection

        monkeypatch.setattr(sqlite3, "connect", full)
        with pytest.raises(ConfigError, match="cannot be written: database or disk is full") as info:
            ledger.reserve(many)
        plain(info.value)
        monkeypatch.undo()
        assert Ledger(tmp_path / "ledger.db").head() == before
        ledger.reserve(many)

    def test_read_only(self, open_folder: Path) -> None:
        ledger_in(open_folder)
        keeper = sqlite3.connect(open_folder / "ledger.db")
        keeper.execute("SELECT count(*) FROM entries").fetchone()
        for file in open_folder.iterdir():
            file.chmod(0o444)

        def write() -> None:
            if os.getuid() == 0:
                os.setuid(NOBODY)
            Ledger(open_folder / "ledger.db").reserve([debit()])

        told = in_child(write)
        keeper.close()
        assert "cannot be" in told
        assert Ledger(open_folder / "ledger.db").debits() == ()

    def test_a_writer_that_does_not_end(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        ledger = ledger_in(tmp_path)
        monkeypatch.setattr("privacy.store.database._WAIT", 0.01)
        with Database(tmp_path / "ledger.db").writing(), pytest.raises(ConfigError, match="locked") as info:
            ledger.reserve([debit()])
        plain(info.value)
        ledger.reserve([debit()])

    def test_a_block_that_fails_leaves_nothing(self, tmp_path: Path) -> None:
        ledger_in(tmp_path)

        def fail() -> None:
            with Database(tmp_path / "ledger.db").writing() as connection:
                connection.execute("INSERT INTO admissions VALUES ('va', x'00', 1, 1)")
                raise KeyError

        with pytest.raises(KeyError):
            fail()
        assert Admissions(tmp_path / "ledger.db").last("va", b"\0") == (0, 0)

    def test_every_connection_is_durable(self, tmp_path: Path) -> None:
        ledger_in(tmp_path)
        with Database(tmp_path / "ledger.db").writing() as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
