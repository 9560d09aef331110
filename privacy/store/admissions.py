"""Attempts at secure aggregation that a site has admitted: each once, increasing within a run, durable before ADV.

See docs/protocol.md §6.1. A restored old store would admit again what was admitted before; that attempt then has fresh
keys, so nothing is masked twice under the same ones.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import ConfigError, LocalProtocolError
from privacy.secagg.effects import Attempt

_SCHEMA = """
CREATE TABLE IF NOT EXISTS admissions (
  site TEXT NOT NULL,
  run BLOB NOT NULL,
  round INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  UNIQUE (site, run, round, attempt)
) STRICT;
"""


class Admissions:
    """Admitted attempts, one file; safe to open from several threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with self._open() as connection:
                connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError(f"the admissions {path} cannot be used: {error}") from error

    def last(self, site: str, run: bytes) -> tuple[int, int]:
        """Returns the highest ``(round, attempt)`` that the site admitted in the run, ``(0, 0)`` if none."""
        with self._open() as connection:
            row = connection.execute(
                "SELECT round, attempt FROM admissions WHERE site = ? AND run = ? ORDER BY round DESC, attempt DESC",
                (site, run),
            ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def admit(self, site: str, record: Attempt) -> None:
        """Writes an attempt down durably.

        Raises:
          LocalProtocolError: It was admitted before.
          ConfigError: The file cannot be written.
        """
        try:
            with self._open() as connection:
                connection.execute(
                    "INSERT INTO admissions VALUES (?, ?, ?, ?)", (site, record.run, record.round, record.attempt)
                )
        except sqlite3.IntegrityError as error:
            raise LocalProtocolError(f"round {record.round} attempt {record.attempt} was admitted before") from error
        except sqlite3.Error as error:
            raise ConfigError(f"the admissions {self._path} cannot be written: {error}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            with connection:  # commits, or rolls back
                yield connection
        finally:
            connection.close()
