"""How far a run is, in one file of its folder: a transaction a round, so that a crash costs at most an attempt.

The commit of a round holds its record, the algorithm's state, what the driver remembers, how long the other files of
the run were, and the head of the server's budget ledger. The hash of a commit covers the one before it: the models of
a run are one line. Nothing is pickled: a state is its fields, arrays (of at most 1 GB, SQLite's own limit) or numbers,
and is read back only into the shape that the same algorithm begins with.

What it does not defend: whoever can write the server's disk can put an older copy of the whole folder back. Witnesses
of the transparency log are for that.
"""

import hashlib
import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.errors import ConfigError
from privacy.store.books import Link
from privacy.store.database import Database
from privacy.store.ledger import Ledger
from server.exchange import Egress
from server.lock import alone_in
from server.rounds import Resumed, RoundRecord, Standing
from strategies.task import SiteId

CHECKPOINT_FILE = "checkpoint.db"
SCHEMA = (
    """CREATE TABLE commits (
      round INTEGER PRIMARY KEY, body TEXT NOT NULL, hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT""",
    "CREATE TABLE arrays (name TEXT PRIMARY KEY, data BLOB NOT NULL) STRICT",
    "CREATE TABLE begun (round INTEGER NOT NULL, attempt INTEGER NOT NULL, PRIMARY KEY (round, attempt)) STRICT",
    "CREATE TABLE ended (id INTEGER PRIMARY KEY CHECK (id = 0), reason TEXT NOT NULL) STRICT",
)
"""Commits, of which number 0 says whose run it is; arrays of the last state; attempts; why the run stopped early."""
VERSION = 1
"""Of the schema and of what bodies mean; a file of another version is refused."""

_START = bytes(32)
_DAMAGED = "Bring back an intact copy of the folder, or run anew; what was spent stays spent."


@dataclass(frozen=True)
class Surroundings:
    """What belongs to a run beside its checkpoints.

    Attributes:
      folder: Of the run; exists.
      files: Names in it of files that the run appends to. Resuming cuts them to what they held at the last commit.
      ledger: The server's, whose head is in every commit; ``None`` if the server adds no noise.
    """

    folder: Path
    files: tuple[str, ...] = ()
    ledger: Ledger | None = None

    def marks(self) -> dict[str, Any]:
        """Returns how long the files are, once that is durable, and the ledger's head.

        Raises: ConfigError: A disk does not take what was written.
        """
        head = None if self.ledger is None else self.ledger.head()
        return {
            "files": {name: _synced_size(self.folder / name) for name in self.files},
            "ledger": None if head is None else [head.seq, head.hash.hex()],
        }

    def restore(self, marks: Mapping[str, Any]) -> None:
        """Cuts every file back to its mark.

        Raises:
          ConfigError: A file lost what it held, or the run had other files or a ledger when it began.
          VerificationError: The ledger is older than the commit, or another one.
        """
        sizes: Mapping[str, int] = marks["files"]
        if set(sizes) != set(self.files) or (marks["ledger"] is None) != (self.ledger is None):
            raise ConfigError(f"the run in {self.folder} was begun with other files or another ledger")
        if self.ledger is not None:
            seq, digest = marks["ledger"]
            self.ledger.check_head(Link(seq, bytes.fromhex(digest)))
        for name, size in sizes.items():
            _cut(self.folder / name, size)


class Checkpoints:
    """The journal of one run (`server.rounds.Journal`); ``create`` and ``open`` lend it, alone in the run's folder.

    Attributes:
      run: What the run is called in its ledgers and contexts; public.
      job: Digest of the settings that everybody agreed to.
    """

    def __init__(self, file: Database, around: Surroundings, job: str) -> None:
        """Reads a file that has a first commit. See ``open``."""
        self._file = file
        self._around = around
        with file.reading() as connection:
            first = next(iter(self._commits(connection)), None)
        if first is None:
            raise ConfigError(f"{file.path} is damaged: it says nothing of a run", hint=_DAMAGED)
        if first.body["job"] != job:
            raise ConfigError(
                f"{file.path} belongs to another job: {first.body['job'][:16]}…, not {job[:16]}…",
                hint="Resume with the settings, the data plan and the software that the run was begun with.",
            )
        self.job, self.run = job, str(first.body["run"])

    @classmethod
    @contextmanager
    def create(cls, around: Surroundings, *, job: str, run: str) -> Iterator["Checkpoints"]:
        """Makes the file of a new run. Lines that its files hold already belong to it from the start.

        Args:
          around: Where, and what beside.
          job: Digest of the settings, hex.
          run: Names the run in ledgers and contexts, for ever.

        Raises: ConfigError: There is one already, it cannot be made, or another process is in the folder.
        """
        with alone_in(around.folder):
            first = {"job": job, "run": run, **around.marks()}
            file = _File.make(around.folder / CHECKPOINT_FILE, lambda connection: _commit(connection, 0, first))
            yield cls(file, around, job)

    @classmethod
    @contextmanager
    def open(cls, around: Surroundings, *, job: str) -> Iterator["Checkpoints"]:
        """Opens the file of a run that was begun before.

        Raises: ConfigError: There is none, it is damaged or another job's, or another process is in the folder.
        """
        with alone_in(around.folder):
            yield cls(_File(around.folder / CHECKPOINT_FILE), around, job)

    def begun(self, number: int, attempt: int) -> None:
        """Notes an attempt. Raises: ConfigError: It cannot be written, or was begun before: ask nobody."""
        with self._file.writing() as connection:
            connection.execute("INSERT INTO begun VALUES (?, ?)", (number, attempt))

    def committed(self, record: RoundRecord, standing: Standing) -> None:
        """Notes a round that is done, all or nothing. Raises: ConfigError: It cannot be written: it is not done."""
        numbers, arrays = _taken_apart(standing.state)
        body = {
            "record": {**vars(record), "missing": dict(record.missing)},
            "accepted": dict(standing.accepted),
            "retries": standing.retries,
            "spent": dict(standing.spent),
            "egress": {site: asdict(account) for site, account in standing.egress.items()},
            "numbers": numbers,
            "arrays": {name: _described(array) for name, array in arrays.items()},
            **self._around.marks(),
        }
        with self._file.writing() as connection:
            _commit(connection, standing.round, body)
            connection.execute("DELETE FROM arrays")
            connection.executemany(
                "INSERT INTO arrays VALUES (?, ?)", [(name, array.tobytes()) for name, array in arrays.items()]
            )

    def stopped(self, reason: str) -> None:
        """Notes why the run ended early. Raises: ConfigError: It cannot be written."""
        with self._file.writing() as connection:
            connection.execute("INSERT OR REPLACE INTO ended VALUES (0, ?)", (reason,))

    def resumed(self, template: Any) -> Resumed:
        """Returns where the run stands, having cut its files back to that.

        Args:
          template: A state of the same algorithm and model, such as that before round 1.

        Raises:
          ConfigError: The file is damaged, holds another algorithm's state, or another file lost what it held.
          VerificationError: The server's ledger is older than the last commit, or another one.
        """
        with self._file.reading() as connection:
            commits = list(self._commits(connection))
            data = dict(connection.execute("SELECT name, data FROM arrays"))
            last = commits[-1]
            (begun,) = connection.execute(
                "SELECT coalesce(max(attempt), 0) FROM begun WHERE round = ?", (last.round + 1,)
            ).fetchone()
            ended = connection.execute("SELECT reason FROM ended").fetchone()
        standing = None
        if last.round > 0:
            with self._intact():
                state = _put_together(template, last.body, data)
            standing = last.standing(state)
        self._around.restore(last.body)
        return Resumed(standing, tuple(each.record for each in commits[1:]), begun, ended[0] if ended else "")

    def _commits(self, connection: sqlite3.Connection) -> Iterator["_Commit"]:
        """Yields every commit in order. Raises: ConfigError: One is not what was written."""
        link = _START
        rows = connection.execute("SELECT round, body, hash FROM commits ORDER BY round")
        for place, (number, text, digest) in enumerate(rows):
            link = _link(link, text)
            if (number, digest) != (place, link):
                raise ConfigError(f"{self._file.path} is damaged at round {place}", hint=_DAMAGED)
            yield _Commit(number, json.loads(text))

    @contextmanager
    def _intact(self) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            raise ConfigError(f"{self._file.path} is damaged: {error}", hint=_DAMAGED) from error


@dataclass(frozen=True)
class _Commit:
    round: int
    body: Mapping[str, Any]

    @property
    def record(self) -> RoundRecord:
        said = dict(self.body["record"])
        return RoundRecord(**{**said, "answered": tuple(said["answered"]), "still": tuple(said["still"])})

    def standing(self, state: Any) -> Standing:
        body = self.body
        return Standing(
            self.round,
            state,
            {SiteId(site): (at[0], at[1]) for site, at in body["accepted"].items()},
            body["retries"],
            {SiteId(site): reason for site, reason in body["spent"].items()},
            {SiteId(site): Egress(**account) for site, account in body["egress"].items()},
        )


def _commit(connection: sqlite3.Connection, number: int, body: Mapping[str, Any]) -> None:
    row = connection.execute("SELECT round, hash FROM commits ORDER BY round DESC LIMIT 1").fetchone()
    last, link = row or (-1, _START)
    if number != last + 1:
        raise sqlite3.IntegrityError(f"round {number} does not follow round {last}")
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    connection.execute("INSERT INTO commits VALUES (?, ?, ?)", (number, text, _link(link, text)))


def _link(before: bytes, text: str) -> bytes:
    return hashlib.sha256(before + text.encode()).digest()


def _taken_apart(state: Any) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
    """Returns the numbers and the arrays of a frozen state by field. Raises: TypeError: It holds anything else."""
    numbers: dict[str, float] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for each in fields(state):
        value = getattr(state, each.name)
        if isinstance(value, np.ndarray):
            arrays[each.name] = value
        elif isinstance(value, bool | int | float):
            numbers[each.name] = value
        else:
            raise TypeError(f"{type(state).__name__}.{each.name} is neither an array nor a number")
    return numbers, arrays


def _described(array: NDArray[Any]) -> dict[str, Any]:
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": digest}


def _put_together(template: Any, body: Mapping[str, Any], data: Mapping[str, bytes]) -> Any:
    """Returns the state, of the template's type, with read-only arrays of the template's shapes.

    Raises: ValueError: It holds other fields, arrays or bytes than were described.
    """
    numbers, arrays = _taken_apart(template)
    if body["numbers"].keys() != numbers.keys() or not body["arrays"].keys() == data.keys() == arrays.keys():
        raise ValueError(f"it holds no {type(template).__name__}")
    values: dict[str, Any] = dict(body["numbers"])
    for name, like in arrays.items():
        said = body["arrays"][name]
        if (said["dtype"], tuple(said["shape"])) != (like.dtype.str, like.shape):
            raise ValueError(f"{name} has another shape than this model's")
        if hashlib.sha256(data[name]).hexdigest() != said["sha256"]:
            raise ValueError(f"{name} is not what was written")
        values[name] = np.frombuffer(data[name], like.dtype).reshape(like.shape)
    return type(template)(**values)


def _synced_size(path: Path) -> int:
    """Returns a file's length, having synced it and its name; 0 if there is none."""
    try:
        if not path.exists():
            return 0
        for each in (path, path.parent):
            _sync(each)
        return path.stat().st_size
    except OSError as error:
        raise _unwritable(path, error) from error


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cut(path: Path, size: int) -> None:
    """Shortens a file to ``size`` bytes; a line that a crash tore goes with the rest."""
    try:
        found = path.stat().st_size if path.exists() else 0
        if found < size:
            raise ConfigError(f"{path} lost lines that the last checkpoint counts on", hint=_DAMAGED)
        if found > size:
            with path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"{path} cannot be written: {error.strerror or error}", hint="Free space, or make it writable.")


class _File(Database):
    """The checkpoint's database: the same life as a ledger's, with tables of its own."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"there is no run to resume: {path} is not there")
        super().__init__(path)

    @classmethod
    def make(cls, path: Path, fill: Callable[[sqlite3.Connection], None]) -> "_File":
        """Makes the file with its tables and what ``fill`` puts into them; a crash leaves it whole or not there.

        Raises: ConfigError: It exists, or cannot be made.
        """
        if path.exists():
            raise ConfigError(f"there is a run in {path.parent} already", hint="Resume it, or choose another folder.")
        draft = path.with_suffix(".part")
        file = cls.__new__(cls)  # without the checks, which an empty file does not pass
        file.path = draft
        try:
            draft.unlink(missing_ok=True)  # of a crash; SQLite drops a journal that stands beside an empty file
            draft.touch(mode=0o600)
            with file.writing() as connection:
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
                fill(connection)
            with file.reading() as connection:  # last, so that everything is in the one file that is renamed
                connection.execute("PRAGMA journal_mode = WAL")
            draft.rename(path)
            _sync(path.parent)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path)

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        made = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if version != VERSION or made != set(SCHEMA):
            raise ConfigError(f"{self.path} is no checkpoint of version {VERSION}", hint="It is left as it is.")
        (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        if state != "ok":
            raise ConfigError(f"{self.path} is damaged", hint=_DAMAGED)
