"""The one SQLite file of a site, or of the server: how it is made, checked at opening, and written durably.

Strict tables, write-ahead log, ``synchronous=FULL``, one writer at a time (``BEGIN IMMEDIATE``); a connection per call,
so that neither threads nor forked processes share one. The file belongs on a local disk: the write-ahead log needs
shared memory. Whatever goes wrong with the file ends in one plain line.

See: https://www.sqlite.org/wal.html; https://www.sqlite.org/pragma.html#pragma_synchronous (FULL).
"""

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import ClassVar, Self

from privacy.errors import ConfigError

SCHEMA = (
    """CREATE TABLE entries (
      seq INTEGER PRIMARY KEY, body TEXT NOT NULL, hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT""",
    """CREATE TRIGGER entries_are_final BEFORE UPDATE ON entries BEGIN SELECT RAISE(ABORT, 'an entry is final'); END""",
    """CREATE TRIGGER entries_stay BEFORE DELETE ON entries BEGIN SELECT RAISE(ABORT, 'an entry is final'); END""",
    """CREATE TABLE admissions (
      site TEXT NOT NULL, run BLOB NOT NULL, round INTEGER NOT NULL, attempt INTEGER NOT NULL,
      UNIQUE (site, run, round, attempt)
    ) STRICT""",
)
"""Ledger entries (``ledger.py``) and admitted attempts (``admissions.py``)."""
VERSION = 1
"""Of the schema and of what entries mean; a file of another version is refused, never converted in passing."""

_SYNCHRONOUS = "FULL"
_WAIT = 30.0  # seconds for another writer to finish


class Database:
    """An existing file that passed its checks.

    Attributes:
      path: Where.
      tables: What it must consist of, exactly; a file of another kind has a class of its own.
    """

    tables: ClassVar[tuple[str, ...]] = SCHEMA

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises: ConfigError: It is not there, is damaged, is of another version, or is something else.
        """
        self.path = path
        if not path.is_file():
            raise ConfigError(f"there is no database {path}", hint="A budget ledger is created once, on purpose.")
        with self.reading() as connection:
            self._check(connection)

    @classmethod
    def create(cls, path: Path) -> Self:
        """Makes the file if it is not there, then opens it; several processes may do so at once.

        Raises: ConfigError: It cannot be made, or something else is there.
        """
        with _plainly(path, "made"), closing(_connect(path, "rwc")) as connection:
            if not _schema(connection):
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("BEGIN IMMEDIATE")
                if not _schema(connection):  # nobody else was faster
                    for statement in cls.tables:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {VERSION}")
                connection.execute("COMMIT")
        return cls(path)

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lends a connection. Raises: ConfigError: The file cannot be read."""
        with _plainly(self.path, "read"), closing(_connect(self.path, "rw")) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lends a connection inside a transaction that no other writer shares; durable once the block is left.

        A block that raises leaves the file as it was.

        Raises: ConfigError: The file cannot be written (full, read-only, damaged, locked for too long).
        """
        with _plainly(self.path, "written"), closing(_connect(self.path, "rw")) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")  # whatever leaves before this line is rolled back by closing

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version != VERSION:
            age = "an older" if version < VERSION else "a newer"
            raise ConfigError(
                f"{self.path} was written by {age} version (schema {version}, not {VERSION}) or is something else",
                hint="It is left as it is; use the version that wrote it.",
            )
        if _schema(connection) != set(self.tables):
            raise ConfigError(f"{self.path} does not have the tables of schema {VERSION}: it was changed by hand")
        (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if state != "ok" or journal != "wal":
            what = f"journal {journal}" if state == "ok" else _line(state)
            raise ConfigError(f"the database {self.path} is damaged: {what}", hint=_HINT)


@contextmanager
def kept_open(*paths: Path) -> Iterator[None]:
    """Spares every write in the block what the last connection to close costs: it writes the whole log back.

    Args:
      paths: Files that exist. What is durable when stays the same.

    Raises: ConfigError: One cannot be read.
    """
    with ExitStack() as stack:
        for path in paths:
            with _plainly(path, "read"):
                _schema(stack.enter_context(closing(_connect(path, "rw"))))  # a connection joins when it first reads
        yield


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, timeout=_WAIT, isolation_level=None)
    connection.execute(f"PRAGMA synchronous = {_SYNCHRONOUS}")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone does not reach the disk
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _schema(connection: sqlite3.Connection) -> set[str]:
    return {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}


_HINT = "Nothing leaves without it. Free space, make it writable, or bring back the newest copy; never start afresh."


@contextmanager
def _plainly(path: Path, verb: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise ConfigError(f"the database {path} cannot be {verb}: {_line(error)}", hint=_HINT) from error


def _line(reason: object) -> str:
    """Returns SQLite's words as one short line; it quotes from damaged files."""
    return "".join(sign if sign.isprintable() else " " for sign in str(reason))[:200]
