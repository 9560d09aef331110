"""Attempts at secure aggregation that a site has admitted: each once, increasing within a run, durable before ADV.

See docs/protocol.md §6.1. A restored old store would admit again what was admitted before; that attempt then has fresh
keys, so nothing is masked twice under the same ones.
"""

import sqlite3
from pathlib import Path

from privacy.errors import LocalProtocolError
from privacy.secagg.effects import Attempt
from privacy.store.database import Database


class Admissions:
    """Admitted attempts, in the ledger's file or one of their own; safe to open from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it. Raises: ConfigError: It cannot be used."""
        self._database = Database.create(path)

    def last(self, site: str, run: bytes) -> tuple[int, int]:
        """Returns the highest ``(round, attempt)`` that the site admitted in the run, ``(0, 0)`` if none."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT round, attempt FROM admissions WHERE site = ? AND run = ? ORDER BY round DESC, attempt DESC",
                (site, run),
            ).fetchone()
        return (int(row[0]), int(row[1])) if row else (0, 0)

    def count(self, site: str, run: bytes) -> int:
        """Returns how many attempts the site admitted in the run."""
        with self._database.reading() as connection:
            (count,) = connection.execute(
                "SELECT COUNT(*) FROM admissions WHERE site = ? AND run = ?", (site, run)
            ).fetchone()
        return int(count)

    def admit(self, site: str, record: Attempt) -> None:
        """Writes an attempt down durably.

        Raises:
          LocalProtocolError: It was admitted before.
          ConfigError: The file cannot be written.
        """
        with self._database.writing() as connection:
            try:
                connection.execute(
                    "INSERT INTO admissions VALUES (?, ?, ?, ?)", (site, record.run, record.round, record.attempt)
                )
            except sqlite3.IntegrityError as error:
                where = f"round {record.round} attempt {record.attempt}"
                raise LocalProtocolError(f"{where} was admitted before") from error
