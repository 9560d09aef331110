"""The budget ledger: an append-only list of events, durable before anything leaves the site.

A debit is committed with ``synchronous=FULL`` in one transaction; a crash between debit and release therefore
over-counts and never under-counts. Epsilon is not stored: it is computed from the events.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from privacy.dp.events import GaussianEvent
from privacy.errors import ConfigError, LocalProtocolError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS debits (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  site TEXT NOT NULL,
  round INTEGER NOT NULL,
  attempt INTEGER NOT NULL,
  executions INTEGER NOT NULL CHECK (executions > 0),
  event TEXT NOT NULL,
  UNIQUE (site, round, attempt)
) STRICT;
CREATE TRIGGER IF NOT EXISTS debits_are_final BEFORE UPDATE ON debits
  BEGIN SELECT RAISE(ABORT, 'a debit is final'); END;
CREATE TRIGGER IF NOT EXISTS debits_stay BEFORE DELETE ON debits
  BEGIN SELECT RAISE(ABORT, 'a debit is final'); END;
"""


@dataclass(frozen=True)
class Debit:
    """One line of the ledger: what a site's attempt at a round cost."""

    site: str
    round: int
    attempt: int
    event: GaussianEvent


class Ledger:
    """Debits of a run, one file; safe to open from several threads and processes at once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with self._open() as connection:
                connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise ConfigError(f"the ledger {path} cannot be used: {error}") from error

    def debit(self, debit: Debit, *, limit: int) -> None:
        """Writes a debit durably, or not at all; call it before the release that it pays for.

        Args:
          debit: What is about to be released.
          limit: Executions that the site's plan was priced for; checked inside the same transaction, so that two
            attempts at once cannot both take the last place.

        Raises:
          LocalProtocolError: This attempt was debited before, or the limit would be exceeded.
          ConfigError: The file cannot be written.
        """
        try:
            with self._open() as connection:
                connection.execute("BEGIN IMMEDIATE")
                spent = _executed(connection, debit.site)
                if spent + debit.event.count > limit:
                    raise LocalProtocolError(
                        f"{spent} of {limit} executions are spent; no room for {debit.event.count}"
                    )
                connection.execute(
                    "INSERT INTO debits (site, round, attempt, executions, event) VALUES (?, ?, ?, ?, ?)",
                    (debit.site, debit.round, debit.attempt, debit.event.count, json.dumps(debit.event.to_json())),
                )
                connection.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise LocalProtocolError(f"round {debit.round} attempt {debit.attempt} was already debited") from error
        except sqlite3.Error as error:
            raise ConfigError(f"the ledger {self._path} cannot be written: {error}") from error

    def executed(self, site: str) -> int:
        """Counts the mechanism executions that a site has paid for."""
        with self._open() as connection:
            return _executed(connection, site)

    def debits(self, site: str | None = None) -> tuple[Debit, ...]:
        """Lists the debits, of one site or of all, in the order they were made."""
        where, arguments = ("WHERE site = ? ", (site,)) if site is not None else ("", ())
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT site, round, attempt, event FROM debits {where}ORDER BY seq",  # noqa: S608 - fixed texts
                arguments,
            ).fetchall()
        return tuple(Debit(s, r, a, GaussianEvent.from_json(json.loads(event))) for s, r, a, event in rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # A connection per call: sqlite connections must not cross threads, and debits are rare.
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            yield connection
        finally:
            connection.close()  # an open transaction is rolled back


def _executed(connection: sqlite3.Connection, site: str) -> int:
    row = connection.execute("SELECT COALESCE(SUM(executions), 0) FROM debits WHERE site = ?", (site,)).fetchone()
    return int(row[0])
