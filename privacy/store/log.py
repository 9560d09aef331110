"""The transparency log of a site, or of the server: entries that can only be added, each state signed.

An entry is canonical JSON with its kind, its content and the hash of the entry before it; it is a leaf of a Merkle
tree, and every ``append`` ends in a signed checkpoint of that tree, durable with its entries or not at all. So whoever
changes an entry must also change all later ones and forge the checkpoint. Whoever puts an *older copy* of the whole
file back forges nothing: only a witness who kept a later checkpoint can tell.

An entry says who, what, decision, digests and costs; never data, an update, or a secret.

See: docs/transparency-log.md.
"""

import json
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from privacy.audit import canonical
from privacy.audit.checkpoint import Checkpoint, NoteKey, check_name, open_checkpoint, sign
from privacy.audit.merkle import HASH_BYTES, Frontier, consistency_proof, inclusion_proof, leaf_hash
from privacy.audit.witness import growth, place
from privacy.errors import ConfigError, LocalProtocolError, VerificationError
from privacy.keys.signing import SigningKey
from privacy.store.books import Link
from privacy.store.database import Database
from privacy.store.ledger import Ledger

MAX_ENTRY_BYTES = 2**16
SCHEMA = (
    """CREATE TABLE log_entries (
      seq INTEGER PRIMARY KEY, body BLOB NOT NULL, hash BLOB NOT NULL CHECK (length(hash) = 32)
    ) STRICT""",
    "CREATE TABLE log_state (id INTEGER PRIMARY KEY CHECK (id = 0), note BLOB NOT NULL) STRICT",
    """CREATE TRIGGER log_is_final BEFORE UPDATE ON log_entries BEGIN SELECT RAISE(ABORT, 'an entry is final'); END""",
    """CREATE TRIGGER log_stays BEFORE DELETE ON log_entries BEGIN SELECT RAISE(ABORT, 'an entry is final'); END""",
)
VERSION = 1
"""Of the schema and of what entries mean; a file of another version is refused."""

_KIND = re.compile(r"[a-z][a-z0-9-]{0,63}")
_CREATED, _HEAD = "created", "ledger-head"
_MISSING = "A log is created once, on purpose: a new one in its place would hide what was in it."


class Record(NamedTuple):
    """What is to be logged: a kind (lower-case words with hyphens) and its content, JSON without fractions."""

    kind: str
    content: Mapping[str, Any]


class Entry(NamedTuple):
    """An entry as the log holds it: its place, counted from 0, what it says, and the bytes that are the leaf."""

    seq: int
    record: Record
    body: bytes


def ledger_head(ledger: str, head: Link) -> Record:
    """Returns the record of a budget ledger's last entry, for ``Log.check_ledger`` to compare with."""
    return Record(_HEAD, {"ledger": ledger, "seq": head.seq, "hash": head.hash.hex()})


class Log:
    """A log file; safe to use from several threads and processes, of which one writes at a time.

    Opening derives every hash and the tree from the entries, and compares with the signed checkpoint.
    """

    def __init__(self, path: Path, log: NoteKey | None = None) -> None:
        """Opens a log that was created before; a missing one is never made in passing.

        Args:
          path: Where; a local disk.
          log: The key that must have signed it; by default the one its first entry names, which shows that the file is
            whole and not whose it is.

        Raises:
          ConfigError: It is not there, is damaged, or is something else.
          VerificationError: Its entries are not those that were signed; the first wrong one is named.
        """
        self._database = _File(path)
        self._lock = threading.Lock()
        self._story = _Story(log)
        self.note()

    @classmethod
    def create(cls, path: Path, origin: str, key: SigningKey) -> "Log":
        """Makes a new log with one entry, which says whose it is.

        Args:
          path: Where; a local disk.
          origin: Its name, for ever: one word, for instance ``example.org/site``.
          key: Signs every state. Secret; it is not kept.

        Raises: ConfigError: There is one already, or it cannot be made.
        """
        log = NoteKey(check_name(origin), key.public_key)
        with _File.create(path).writing() as connection:
            if connection.execute("SELECT 1 FROM log_entries").fetchone():
                raise ConfigError(f"there is a log in {path} already")
            created = Record(_CREATED, {"origin": origin, "key": key.public_key.hex()})
            _add(connection, _Story(log), [created], key)
        return cls(path, log)

    @property
    def key(self) -> NoteKey:
        """The key that this log was checked under."""
        return self._story.key

    def append(self, records: Sequence[Record], key: SigningKey) -> bytes:
        """Adds entries, all or none, and signs the new state; durable once it returns.

        Args:
          records: At least one.
          key: The log's. Secret; it is not kept.

        Returns: The signed checkpoint.

        Raises:
          ConfigError: A record cannot be logged, or the file cannot be written: nothing was added.
          LocalProtocolError: There is no record, or the key is not the log's.
        """
        with self._lock, self._database.writing() as connection:
            self._story = self._story.caught_up(connection)
            if not records or key.public_key != self._story.key.public_key:
                raise LocalProtocolError("a log grows by at least one entry, signed by its own key")
            return _add(connection, self._story, records, key)

    def note(self) -> bytes:
        """Returns the signed checkpoint of the last state."""
        with self._reading():
            return self._story.note

    def growth(self, old: int) -> bytes:
        """Returns what a witness that has seen ``old`` entries needs for ``Witness.accept``.

        Raises: ConfigError: There never were so many.
        """
        with self._reading() as connection:
            if not 0 <= old <= self._story.frontier.size:
                raise ConfigError(f"the log has {self._story.frontier.size} entries and never had {old}")
            return growth(old, consistency_proof(old, _leaves(connection)), self._story.note)

    def proof(self, seq: int) -> bytes:
        """Returns the proof that an entry is in the log. Raises: ConfigError: There is no such entry."""
        with self._reading() as connection:
            if not 0 <= seq < self._story.frontier.size:
                raise ConfigError(f"the log has no entry {seq}: its last one is {self._story.frontier.size - 1}")
            return place(seq, inclusion_proof(seq, _leaves(connection)), self._story.note)

    def entries(self, start: int = 0) -> list[Entry]:
        """Returns the entries from a place on."""
        with self._reading() as connection:
            rows = connection.execute("SELECT seq, body FROM log_entries WHERE seq >= ? ORDER BY seq", (start,))
            return [Entry(seq, _decode(body)[0], body) for seq, body in rows]

    def check(self, *witnessed: bytes) -> Checkpoint:
        """Derives everything again from the entries, and compares with checkpoints that others kept.

        Returns: The last checkpoint, verified.

        Raises:
          ConfigError: The file is damaged, or what a witness kept is no checkpoint.
          VerificationError: The first thing that is not as it was signed, or as a witness saw it.
        """
        seen = [open_checkpoint(note, self.key) for note in witnessed]
        with self._lock, _snapshot(self._database) as connection:
            story = _Story(self.key).caught_up(connection, seen)
        return open_checkpoint(story.note, self.key)

    def ledger_head(self, ledger: str) -> Link | None:
        """Returns the last head of that budget ledger that is in this log, ``None`` if there is none."""
        with self._reading():
            return self._story.heads.get(ledger)

    def note_ledger(self, ledger: Ledger, key: SigningKey) -> None:
        """Adds a budget ledger's head, if it moved since it was last added: before anything that it paid for leaves.

        Raises: As `append`.
        """
        with ledger.reading() as books:
            name, head = books.ledger, books.head
        if self.ledger_head(name) != head:
            self.append([ledger_head(name, head)], key)

    def check_ledger(self, ledger: Ledger) -> None:
        """Compares a budget ledger with the last head of it in this log; one that was never logged passes.

        How old the log itself is, only a witness knows: ``check`` comes first.

        Raises: VerificationError: The ledger is older, or tells another story (``Ledger.check_head``).
        """
        with ledger.reading() as books:
            name = books.ledger
        head = self.ledger_head(name)
        if head is not None:
            ledger.check_head(head)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _snapshot(self._database) as connection:
            self._story = self._story.caught_up(connection)
            yield connection


class _Story:
    """What the entries that were read so far amount to."""

    def __init__(self, trusted: NoteKey | None) -> None:
        self.trusted = trusted
        self.key = trusted or NoteKey("", b"")  # until the first entry names it
        self.frontier = Frontier()
        self.last = bytes(HASH_BYTES)  # hash of the last entry
        self.note = b""
        self.heads: dict[str, Link] = {}  # of budget ledgers

    def copy(self) -> "_Story":
        """Returns one that can go on without this one."""
        story = _Story(self.trusted)
        story.__dict__.update(self.__dict__, heads=dict(self.heads))
        return story

    def caught_up(self, connection: sqlite3.Connection, seen: Sequence[Checkpoint] = ()) -> "_Story":
        """Returns the story with what was written since; a failure leaves this one as it was.

        Args:
          connection: Inside a transaction.
          seen: States that witnesses know; only for a story from the start.
        """
        story = self.copy()
        size = self.frontier.size
        rows = connection.execute("SELECT seq, body, hash FROM log_entries WHERE seq >= ? ORDER BY seq", (size - 1,))
        if size and next(rows, (None,))[::2] != (size - 1, self.last):
            raise VerificationError("the log was replaced by another copy while it was open")
        for row in rows:
            story.read(*row)
            for one in seen:
                if one.size == story.frontier.size and one.root != story.frontier.root():
                    raise VerificationError(f"a witness saw another story in the first {one.size} entries of this log")
        size = story.frontier.size
        if not size:
            raise ConfigError("the file holds no log", hint=_MISSING)
        for one in seen:
            if one.size > size:
                raise VerificationError(
                    f"a witness saw {one.size} entries of this log, which now ends after {size}",
                    hint="It is an old or another copy; nothing may leave before the newest one is back.",
                )
        (story.note,) = connection.execute("SELECT note FROM log_state").fetchone() or (b"",)
        story.check_note()
        return story

    def read(self, seq: int, body: bytes, digest: bytes) -> None:
        """Takes in the next entry. Raises: VerificationError: It is not the one that was written."""
        try:
            record, previous = _decode(body)
            fits = (seq, digest, previous) == (self.frontier.size, leaf_hash(body), self.last)
            fits = fits and (record.kind == _CREATED) == (seq == 0)
            if fits:
                self._take(record)
        except (ConfigError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
            fits = False
        if not fits:
            raise VerificationError(f"entry {self.frontier.size} of the log is missing or not as it was written")
        self.frontier, self.last = self.frontier.then(digest), digest

    def _take(self, record: Record) -> None:
        content = record.content
        if record.kind == _CREATED:
            named = NoteKey(check_name(content["origin"]), bytes.fromhex(content["key"]))
            if self.trusted not in {None, named}:
                raise VerificationError("the log is not the one that this key belongs to")
            self.key = named
        elif record.kind == _HEAD:
            self.heads[content["ledger"]] = Link(int(content["seq"]), bytes.fromhex(content["hash"]))

    def check_note(self) -> None:
        """Compares the signed checkpoint with the entries. Raises: VerificationError: It is about others."""
        try:
            signed = open_checkpoint(self.note, self.key)
        except ConfigError as error:
            raise VerificationError(f"the log's own checkpoint was changed: {error}") from None
        size = self.frontier.size
        if signed.origin != self.key.name or signed.size != size:
            raise VerificationError(f"the log ends after {size} entries; what was signed has {signed.size}")
        if signed.root != self.frontier.root():
            raise VerificationError(f"the {size} entries of the log are not those that were signed")


class _File(Database):
    """The database file of a log: the same life as a ledger's, with tables of its own."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"there is no log {path}", hint=_MISSING)
        super().__init__(path)

    @classmethod
    def create(cls, path: Path) -> "_File":
        """Makes the file with its tables, if it is not there. Raises: ConfigError: It cannot be made."""
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise ConfigError(f"the log {path} cannot be made: {error.strerror or error}") from error
        file = cls.__new__(cls)  # without the checks, which an empty file does not pass
        file.path = path
        with file.reading() as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        with file.writing() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema").fetchone():
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {VERSION}")
        return cls(path)

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        made = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")}
        if version != VERSION or made != set(SCHEMA):
            raise ConfigError(
                f"{self.path} does not have the tables of a log of version {VERSION}: it was written by another "
                "version, changed by hand, or is something else",
                hint="It is left as it is.",
            )
        (state,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
        (journal,) = connection.execute("PRAGMA journal_mode").fetchone()
        if state != "ok" or journal != "wal":
            raise ConfigError(f"the log {self.path} is damaged", hint="Bring back the newest copy; never start afresh.")


@contextmanager
def _snapshot(database: Database) -> Iterator[sqlite3.Connection]:
    """Lends a connection that sees one state, whatever others write meanwhile."""
    with database.reading() as connection:
        connection.execute("BEGIN")
        yield connection


def _add(connection: sqlite3.Connection, story: _Story, records: Sequence[Record], key: SigningKey) -> bytes:
    """Writes entries after those of the story, with the checkpoint of the new state."""
    after = story.copy()
    for record in records:
        seq, body = after.frontier.size, _encode(record, after.last)
        try:
            after.read(seq, body, leaf_hash(body))
        except VerificationError:
            raise ConfigError(
                f"an entry of kind {record.kind} does not say what it must, or is the log's own"
            ) from None
        connection.execute("INSERT INTO log_entries VALUES (?, ?, ?)", (seq, body, after.last))
    note = sign(Checkpoint(story.key.name, after.frontier.size, after.frontier.root()), key)
    connection.execute("INSERT OR REPLACE INTO log_state VALUES (0, ?)", (note,))
    return note


def _leaves(connection: sqlite3.Connection) -> list[bytes]:
    return [digest for (digest,) in connection.execute("SELECT hash FROM log_entries ORDER BY seq")]


def _encode(record: Record, previous: bytes) -> bytes:
    if not _KIND.fullmatch(record.kind):
        raise ConfigError("an entry's kind is lower-case words with hyphens")
    entry = {"kind": record.kind, "content": dict(record.content), "previous": previous.hex()}
    body = canonical.dumps(entry)
    canonical.loads(body, what="the entry")  # what cannot be read back would make the log unreadable
    if len(body) > MAX_ENTRY_BYTES:
        raise ConfigError(f"an entry of the log is larger than {MAX_ENTRY_BYTES // 2**10} KiB")
    return body


def _decode(body: bytes) -> tuple[Record, bytes]:
    entry = json.loads(body)
    return Record(entry["kind"], entry["content"]), bytes.fromhex(entry["previous"])
