"""The log file: what is acknowledged stays, tampering is found, and what only a witness can find is found by one."""

import json
import os
import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from typer.testing import CliRunner

from privacy.audit.canonical import MAX_DEPTH
from privacy.audit.checkpoint import open_checkpoint
from privacy.audit.witness import Witness, open_place
from privacy.errors import ConfigError, FederationError, LocalProtocolError, VerificationError
from privacy.store.command import site
from privacy.store.ledger import Ledger
from privacy.store.log import MAX_ENTRY_BYTES, Log, Record, ledger_head
from tests.privacy.store.example import HEARTS, debit, ledger_in
from tests.privacy.store.tampering import (
    KEY,
    KINDS,
    ORIGIN,
    STRANGER,
    TRUSTED,
    Honest,
    case,
    honest_log,
    numbered,
    rewrite,
)

SIZE = 24
ONE = Record("decision", {"who": "server", "allowed": True})


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return honest_log(tmp_path_factory.mktemp("honest"), SIZE)


def new(folder: Path) -> Log:
    return Log.create(folder / "log.db", ORIGIN, KEY)


def refusal(path: Path, *witnessed: bytes) -> FederationError | None:
    try:
        Log(path, TRUSTED).check(*witnessed)
    except FederationError as error:
        return plain(error)
    return None


def plain(error: FederationError) -> FederationError:
    assert 1 <= len(error.lines()) <= 2
    assert all(line.isprintable() for line in error.lines())
    return error


class TestLife:
    def test_what_was_appended_is_there_and_proven(self, tmp_path: Path) -> None:
        log = new(tmp_path)
        note = log.append([ONE, Record("release", {"digest": "ab"})], KEY)
        again = Log(tmp_path / "log.db")
        assert again.key == TRUSTED
        assert [(one.seq, *one.record) for one in again.entries(1)] == [
            (1, "decision", ONE.content),
            (2, "release", {"digest": "ab"}),
        ]
        assert again.note() == note
        assert again.check() == open_checkpoint(note, TRUSTED)
        for entry in again.entries():
            assert open_place(again.proof(entry.seq), entry.body, TRUSTED)[0] == entry.seq
        with pytest.raises(ConfigError, match="no entry 3"):
            again.proof(3)

    def test_a_witness_follows_it(self, tmp_path: Path) -> None:
        log, witness = new(tmp_path), Witness(ORIGIN, TRUSTED)
        for number in range(10):
            old = 0 if witness.seen is None else witness.seen.size
            witness = witness.accept(log.growth(old))
            log.append([ONE] * (number % 3 + 1), KEY)
        with pytest.raises(ConfigError, match="never had 99"):
            log.growth(99)

    def test_two_objects_see_each_other_s_entries(self, tmp_path: Path) -> None:
        first = new(tmp_path)
        second = Log(tmp_path / "log.db")
        for log in (first, second, second, first):
            log.append([ONE], KEY)
        assert len(first.entries()) == len(second.entries()) == 5

    @pytest.mark.parametrize(
        "record",
        [
            Record("Kind", {}),
            Record("", {}),
            Record("a", {"x": 0.5}),
            Record("a", {"x": float("nan")}),
            Record("a", {"x": "\x1b[2J"}),
            Record("a", {"x": "a" * MAX_ENTRY_BYTES}),
            Record("a", {"x": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}),
            Record("created", {"origin": ORIGIN, "key": KEY.public_key.hex()}),
            Record("ledger-head", {"ledger": "a"}),
        ],
    )
    def test_what_cannot_be_logged_leaves_it_as_it_was(self, tmp_path: Path, record: Record) -> None:
        log = new(tmp_path)
        before = log.note()
        with pytest.raises(ConfigError):
            log.append([ONE, record], KEY)
        assert Log(tmp_path / "log.db").note() == before

    def test_only_its_own_key_signs(self, tmp_path: Path) -> None:
        log = new(tmp_path)
        for records, key in (([ONE], STRANGER), ([], KEY)):
            with pytest.raises(LocalProtocolError):
                log.append(records, key)
        with pytest.raises(VerificationError, match="not the one that this key"):
            Log(tmp_path / "log.db", TRUSTED._replace(public_key=STRANGER.public_key))
        assert len(log.entries()) == 1

    def test_a_log_is_never_made_in_passing(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no log"):
            Log(tmp_path / "log.db")
        assert not (tmp_path / "log.db").exists()
        new(tmp_path)
        with pytest.raises(ConfigError, match="there is a log"):
            new(tmp_path)
        with pytest.raises(ConfigError, match="cannot be made"):
            new(tmp_path / "nowhere")
        ledger_in(tmp_path)
        with pytest.raises(ConfigError, match="tables of a log"):
            Log(tmp_path / "ledger.db")
        assert (tmp_path / "log.db").stat().st_mode & 0o077 == 0

    def test_entries_are_final(self, tmp_path: Path) -> None:
        new(tmp_path)
        with closing(sqlite3.connect(tmp_path / "log.db")) as connection:
            for statement in ("DELETE FROM log_entries", "UPDATE log_entries SET seq = 7"):
                with pytest.raises(sqlite3.IntegrityError, match="final"):
                    connection.execute(statement)
            connection.execute("DROP TRIGGER log_stays")
            connection.commit()
        with pytest.raises(ConfigError, match="changed by hand"):
            Log(tmp_path / "log.db")

    def test_another_copy_while_it_is_open(self, tmp_path: Path, honest: Honest) -> None:
        path = tmp_path / "log.db"
        path.write_bytes(honest.files[SIZE].read_bytes())
        log = Log(path)
        rewrite(path, numbered(honest.bodies[:5]), honest.notes[5])
        with pytest.raises(VerificationError, match="replaced by another copy"):
            log.append([ONE], KEY)

    def test_killed_writers_lose_nothing_that_was_acknowledged(self, tmp_path: Path) -> None:
        new(tmp_path)
        acknowledged, drawn = 0, Random(6)  # noqa: S311 - when to kill, not a secret
        for _ in range(10):
            pipes = [writer(tmp_path / "log.db") for _ in range(2)]
            time.sleep(drawn.uniform(0.02, 0.08))
            for child, said in pipes:
                os.kill(child, signal.SIGKILL)
                assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
                with os.fdopen(said, "rb") as pipe:
                    acknowledged += len(pipe.read())
        log = Log(tmp_path / "log.db")
        assert log.check().size - 1 >= acknowledged >= 10


def writer(path: Path) -> tuple[int, int]:
    said, say = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            log = Log(path)
            while True:
                log.append([ONE], KEY)
                os.write(say, b"1")
        finally:
            os._exit(1)
    os.close(say)
    return child, said


class TestTampering:
    def found(self, honest: Honest, folder: Path, cases: int, seed: int) -> Counter[str]:
        """Tampers in every way in turn; every case must be found, by whom ``case`` says."""
        drawn, counted = Random(seed), Counter[str]()  # noqa: S311 - which byte, not a secret
        path = folder / "log.db"
        for number in range(cases):
            kind = KINDS[number % len(KINDS)]
            size = case(kind, honest, path, drawn)
            if size is None:
                assert refusal(path) is not None, f"{kind} was not found: seed {seed}, case {number}"
                counted[f"{kind}, by the file"] += 1
                continue
            assert refusal(path) is None, f"{kind} is in order by itself: seed {seed}, case {number}"
            told = refusal(path, honest.notes[size])
            assert isinstance(told, VerificationError), f"{kind} was not found: seed {seed}, case {number}"
            self.witness_refuses(Log(path, TRUSTED), honest.notes[size])
            counted[f"{kind}, by a witness"] += 1
        return counted

    def witness_refuses(self, log: Log, note: bytes) -> None:
        seen = open_checkpoint(note, TRUSTED)
        size = log.check().size
        with pytest.raises(VerificationError, match="forked" if size >= seen.size else "went back"):
            Witness(ORIGIN, TRUSTED, seen).accept(log.growth(min(size, seen.size)))

    def test_every_case_is_found(self, honest: Honest, tmp_path: Path) -> None:
        assert sum(self.found(honest, tmp_path, 490, 1).values()) == 490

    @pytest.mark.soak
    @pytest.mark.timeout(1800)
    def test_every_one_of_ten_thousand(self, honest: Honest, tmp_path: Path) -> None:
        counted = self.found(honest, tmp_path, 10_003, 2)
        print(json.dumps(counted, indent=2))  # noqa: T201 - the figures of the row in the issue
        assert sum(counted.values()) == 10_003

    def test_the_first_wrong_entry_is_named(self, honest: Honest, tmp_path: Path) -> None:
        path = tmp_path / "log.db"
        for seq in range(SIZE):
            path.write_bytes(honest.files[SIZE].read_bytes())
            with closing(sqlite3.connect(path)) as connection:
                (trigger,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'log_is_final'").fetchone()
                connection.execute("DROP TRIGGER log_is_final")
                connection.execute("UPDATE log_entries SET body = CAST(body || x'20' AS BLOB) WHERE seq >= ?", (seq,))
                connection.execute(trigger)
                connection.commit()
            assert str(refusal(path)) == f"entry {seq} of the log is missing or not as it was written"

    def test_where_the_chain_breaks_is_named(self, honest: Honest, tmp_path: Path) -> None:
        path, rows = tmp_path / "log.db", numbered(honest.bodies)
        closed_up = numbered([body for seq, body, _ in rows if seq != 5])
        moved_up = [*rows[:5], *((seq + 1, body, digest) for seq, body, digest in rows[5:])]
        for changed in (closed_up, moved_up):
            path.write_bytes(honest.files[SIZE].read_bytes())
            rewrite(path, changed, honest.notes[SIZE])
            assert str(refusal(path)) == "entry 5 of the log is missing or not as it was written"

    def test_a_cut_without_its_old_checkpoint_is_named(self, honest: Honest, tmp_path: Path) -> None:
        path = tmp_path / "log.db"
        path.write_bytes(honest.files[SIZE].read_bytes())
        rewrite(path, numbered(honest.bodies[:20]), honest.notes[SIZE])
        assert str(refusal(path)) == "the log ends after 20 entries; what was signed has 24"

    def test_the_honest_log_passes(self, honest: Honest) -> None:
        assert refusal(honest.files[SIZE], *honest.notes.values()) is None


class TestLedgerHeads:
    def test_a_ledger_that_went_back_is_found_through_the_log(self, tmp_path: Path) -> None:
        ledger, log = ledger_in(tmp_path), new(tmp_path)
        log.check_ledger(ledger)  # nothing was logged yet
        for number in range(3):
            ledger.reserve([debit(number)])
            for _ in range(2):
                log.note_ledger(ledger, KEY)
            with ledger.reading() as books:
                assert log.entries()[-1].record == ledger_head(books.ledger, books.head)
                assert len(log.entries()) == 2 + number, "a head that did not move is no entry"
            if number == 1:
                old = tmp_path / "old.db"
                with (
                    closing(sqlite3.connect(tmp_path / "ledger.db")) as connection,
                    closing(sqlite3.connect(old)) as copy,
                ):
                    connection.backup(copy)
                    copy.execute("PRAGMA journal_mode = WAL")
        log = Log(tmp_path / "log.db")
        log.check_ledger(ledger)
        with pytest.raises(VerificationError, match="a witness saw entry 5 of this ledger, which now ends at entry 4"):
            log.check_ledger(Ledger(old))
        Ledger.create(tmp_path / "another.db").declare(HEARTS)
        log.check_ledger(Ledger(tmp_path / "another.db"))  # not a ledger that this log knows


class TestCommand:
    def asked(self, *arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(site, ["log", *map(str, arguments)])
        if isinstance(result.exception, FederationError):
            raise result.exception
        return result.exit_code, result.stdout

    def test_show(self, honest: Honest) -> None:
        code, text = self.asked("show", honest.files[SIZE], "--from", 22, "--key", TRUSTED.to_vkey())
        assert code == 0
        assert f"log {ORIGIN}, 24 entries, as signed, root" in text
        assert text.splitlines()[-1] == '23 decision {"number": 24, "who": "aaa"}'
        told = json.loads(self.asked("show", honest.files[3], "--json")[1])
        assert (told["size"], told["key"], len(told["entries"])) == (3, TRUSTED.to_vkey(), 3)

    def test_check(self, honest: Honest, tmp_path: Path) -> None:
        kept = tmp_path / "kept"
        kept.write_bytes(honest.notes[12])
        code, text = self.asked("check", honest.files[SIZE], "--key", TRUSTED.to_vkey(), "--against", kept)
        assert (code, len(text.splitlines())) == (0, 2)
        text = self.asked("check", honest.files[SIZE])[1]
        assert "compare it with the one" in text
        assert "only a checkpoint that somebody else kept" in text
        assert json.loads(self.asked("check", honest.files[SIZE], "--json")[1])["witnessed"] == 0
        with pytest.raises(VerificationError, match="a witness saw 12 entries of this log, which now ends after 11"):
            self.asked("check", honest.files[11], "--against", kept)
        with pytest.raises(VerificationError, match="not the one that this key"):
            self.asked("check", honest.files[SIZE], "--key", TRUSTED._replace(name="example.org/b").to_vkey())

    def test_prove(self, honest: Honest) -> None:
        path = honest.files[SIZE]
        assert self.asked("prove", path)[1].encode() == honest.notes[SIZE]
        assert open_place(self.asked("prove", path, "--entry", 5)[1].encode(), honest.bodies[5], TRUSTED)[0] == 5
        witness = Witness(ORIGIN, TRUSTED, open_checkpoint(honest.notes[9], TRUSTED))
        assert witness.accept(self.asked("prove", path, "--since", 9)[1].encode()).seen is not None
        assert self.asked("prove", path, "--since", 9, "--entry", 5)[0] == 2
