"""The budget ledger: what every release ever cost a population, durable before anything leaves.

The order is reserve, release bytes, mark as released. A crash in between over-counts and never under-counts: what was
reserved is spent. Epsilon is not stored; it is computed from the events, under the filter fixed with the budget.

What it does not defend: whoever can write the site's disk can write another history. ``head`` is for a witness
elsewhere, and ``check_head`` finds a ledger that is older than what the witness saw.
"""

import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import ConfigError, LocalProtocolError, VerificationError
from privacy.store.books import START, Books, Link, State, entry
from privacy.store.budgets import Asset, Debit
from privacy.store.database import Database


class Ledger:
    """A ledger file; safe to use from several threads and processes at once.

    Opening checks the file and the hash chain over all entries.
    """

    def __init__(self, path: Path) -> None:
        """Opens a ledger that was created before; a missing one is never made in passing: its budgets would be new.

        Raises:
          ConfigError: It is not there, is damaged, or is of another version.
          VerificationError: Its entries are not those that were written.
        """
        self._database = Database(path)
        self._books = Books()
        self._lock = threading.Lock()
        if self.head() == START:
            raise ConfigError(f"{path} holds no ledger", hint="A budget ledger is created once, on purpose.")

    @classmethod
    def create(cls, path: Path, *, simulation: bool = False) -> "Ledger":
        """Makes a new ledger, in a new file or beside the admissions of an existing one.

        Args:
          path: Where; a local disk.
          simulation: Allows assets without a budget, for ever.

        Raises: ConfigError: There is one already, or it cannot be made.
        """
        with Database.create(path).writing() as connection:
            if connection.execute("SELECT 1 FROM entries").fetchone():
                raise ConfigError(f"there is a ledger in {path} already")
            _append(connection, START, "created", {"id": secrets.token_hex(16), "simulation": simulation})
        return cls(path)

    def declare(self, asset: Asset) -> None:
        """Enters an asset with its budgets, or aliases that it got since; the same again changes nothing.

        Raises: ConfigError: It contradicts what was declared before (``Books.new_names``).
        """
        with self._lock, self._database.writing() as connection:
            link = self._catch_up(connection)
            new, aliases = self._books.new_names(asset)
            if new:
                link = _append(connection, link, "asset", asset.to_json())
            for alias in aliases:
                link = _append(connection, link, "alias", {"alias": alias, "asset": asset.name})

    def reserve(self, debits: Sequence[Debit]) -> tuple[Link, ...]:
        """Writes debits durably, all or none; call it before the release that they pay for.

        Budgets, shares and plans are checked inside the same transaction, so that two attempts at once, in whatever
        processes, cannot both take the last place.

        Args:
          debits: Every line of one release: one for each claim that the asset has a budget for.

        Returns: Where each stands, for ``release``.
        Raises: FederationError: As ``Books.check``, or the file cannot be written. Nothing may leave.
        """
        with self._lock, self._database.writing() as connection:
            link = self._catch_up(connection)
            self._books.check(debits)
            links = []
            for debit in debits:
                link = _append(connection, link, "reserved", debit.to_json())
                links.append(link)
        return tuple(links)

    def release(self, links: Sequence[Link]) -> None:
        """Marks reservations as released, after sending; a failure loses the mark and nothing else.

        Raises: LocalProtocolError: One is no open reservation. ConfigError: The file cannot be written.
        """
        with self._lock, self._database.writing() as connection:
            head = self._catch_up(connection)
            for link in links:
                line = self._books.lines.get(link.seq)
                if line is None or line.link != link or line.state is not State.RESERVED:
                    raise LocalProtocolError(f"entry {link.seq} is no open reservation")
                head = _append(connection, head, "released", {"seq": link.seq})

    def check(self, debits: Sequence[Debit]) -> None:
        """Refuses as ``reserve`` would now, without writing; only ``reserve`` decides."""
        with self.reading() as books:
            books.check(debits)

    def executed(self, asset: str, run: str | None = None) -> int:
        """Counts the mechanism executions paid for under a name of an asset, in one run or in all."""
        with self.reading() as books:
            return books.executed(asset, run)

    def debits(self, asset: str | None = None) -> tuple[Debit, ...]:
        """Lists the debits, under one name or under all, in the order they were made."""
        with self.reading() as books:
            debits = (line.debit for line in books.lines.values())
            return tuple(debit for debit in debits if asset in (None, debit.asset))

    def head(self) -> Link:
        """Returns the last entry, for a witness to keep."""
        with self.reading() as books:
            return books.head

    def entries(self) -> tuple[tuple[Link, str], ...]:
        """Lists every entry with its place in the chain, from the first: what a stranger needs to check the ledger."""
        with self._lock, self._database.reading() as connection:
            head = self._catch_up(connection)
            rows = connection.execute("SELECT seq, body, hash FROM entries WHERE seq <= ? ORDER BY seq", (head.seq,))
            return tuple((Link(seq, digest), text) for seq, text, digest in rows)

    @contextmanager
    def reading(self) -> Iterator[Books]:
        """Lends what the ledger says now, for reading only; others wait meanwhile."""
        with self._lock:
            with self._database.reading() as connection:
                self._catch_up(connection)
            yield self._books

    def check_head(self, witnessed: Link) -> None:
        """Compares with what a witness saw.

        Raises: VerificationError: The ledger is older (an old copy was restored), or tells another story.
        """
        with self._lock, self._database.reading() as connection:
            head = self._catch_up(connection)
            row = connection.execute("SELECT hash FROM entries WHERE seq = ?", (witnessed.seq,)).fetchone()
        if row is None or row[0] != witnessed.hash:
            story = f"ends at entry {head.seq}" if row is None else "tells another story"
            raise VerificationError(
                f"a witness saw entry {witnessed.seq} of this ledger, which now {story}",
                hint="It is an old or another copy; nothing may leave before the newest one is back.",
            )

    def _catch_up(self, connection: sqlite3.Connection) -> Link:
        """Reads what others wrote since; the last entry seen must still be there."""
        seen = self._books.head
        rows = connection.execute("SELECT seq, body, hash FROM entries WHERE seq >= ? ORDER BY seq", (seen.seq,))
        if seen.seq > 0:
            last = rows.fetchone()
            if last is None or (last[0], last[2]) != seen:
                raise VerificationError("the ledger was replaced by another copy while it was open")
        for row in rows:
            self._books.read(*row)
        return self._books.head


def _append(connection: sqlite3.Connection, head: Link, kind: str, body: dict[str, object]) -> Link:
    text = entry(kind, body)
    link = head.then(text)
    connection.execute("INSERT INTO entries VALUES (?, ?, ?)", (link.seq, text, link.hash))
    return link
