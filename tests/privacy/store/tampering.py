"""Ways to tamper with a log file: careless, careful (everything derived again), and with the log's own key.

``case`` changes a copy of an honest log and says who must notice: whoever opens the file, or only a witness, because
the file by itself is in order (an older state, or a fork that the log signed).
"""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from privacy.audit.checkpoint import Checkpoint, NoteKey, sign
from privacy.audit.merkle import leaf_hash, root
from privacy.keys.signing import SigningKey
from privacy.store.log import SCHEMA, Log, Record

ORIGIN = "example.org/site"
KEY = SigningKey(bytes(32))
STRANGER = SigningKey(bytes([1]) * 32)
TRUSTED = NoteKey(ORIGIN, KEY.public_key)
KINDS = ("flip", "delete", "reorder", "fork", "fork, signed", "truncate", "roll back")
_TRIGGERS = [statement for statement in SCHEMA if "TRIGGER" in statement]


class Honest(NamedTuple):
    """A log with its past: files and checkpoints by size."""

    files: dict[int, Path]
    notes: dict[int, bytes]
    bodies: list[bytes]


def honest_log(folder: Path, size: int) -> Honest:
    log = Log.create(folder / "log.db", ORIGIN, KEY)
    files, notes = {}, {}
    for number in range(1, size + 1):
        if number > 1:
            log.append([Record("decision", {"number": number, "who": "a" * (number % 7)})], KEY)
        with closing(sqlite3.connect(folder / "log.db")) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        files[number] = Path(shutil.copy(folder / "log.db", folder / f"{number}.db"))
        notes[number] = log.note()
    return Honest(files, notes, [entry.body for entry in log.entries()])


def linked(bodies: Sequence[bytes]) -> list[bytes]:
    """Entries with what they say, in this order, and the chain between them made again."""
    made, previous = list[bytes](), bytes(32)
    for body in bodies:
        made.append(relinked(body, previous))
        previous = leaf_hash(made[-1])
    return made


def relinked(body: bytes, previous: bytes) -> bytes:
    entry: dict[str, Any] = {**json.loads(body), "previous": previous.hex()}
    return json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def rewrite(path: Path, rows: Sequence[tuple[int, bytes, bytes]], note: bytes) -> None:
    """Puts other rows and another checkpoint into the file, as anyone can who writes the disk."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        for name in ("log_is_final", "log_stays"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM log_entries")
        connection.executemany("INSERT INTO log_entries VALUES (?, ?, ?)", rows)
        connection.execute("UPDATE log_state SET note = ?", (note,))
        for trigger in _TRIGGERS:
            connection.execute(trigger)
        connection.execute("COMMIT")


def numbered(bodies: Sequence[bytes]) -> list[tuple[int, bytes, bytes]]:
    return [(seq, body, leaf_hash(body)) for seq, body in enumerate(bodies)]


def signed(bodies: Sequence[bytes], key: SigningKey) -> bytes:
    return sign(Checkpoint(ORIGIN, len(bodies), root([leaf_hash(body) for body in bodies])), key)


def flipped(data: bytes, drawn: Random) -> bytes:
    bit = drawn.randrange(8 * len(data))
    return data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :]


def case(kind: str, honest: Honest, path: Path, drawn: Random) -> int | None:
    """Tampers with a copy at ``path``.

    Returns: ``None`` if the file alone must give it away, otherwise the size that a witness must have seen for it.
    """
    bodies, size = honest.bodies, len(honest.bodies)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    if kind == "roll back":
        back = drawn.randrange(1, size)
        shutil.copy(honest.files[back], path)
        return drawn.randrange(back + 1, size + 1)
    shutil.copy(honest.files[size], path)
    if kind == "truncate":
        back = drawn.randrange(1, size)
        rewrite(path, numbered(bodies[:back]), honest.notes[back])
        return drawn.randrange(back + 1, size + 1)
    if kind == "fork, signed":
        at = drawn.randrange(1, size)
        forked = linked(bodies[:at] + [other(drawn) for _ in range(drawn.randrange(1, size))])
        rewrite(path, numbered(forked), signed(forked, KEY))
        return drawn.randrange(at + 1, size + 1)
    rows = {"flip": flip, "delete": delete, "reorder": reorder, "fork": fork}[kind](bodies, drawn)
    made = [body for _, body, _ in rows]
    # A careful tamperer has no key: an old checkpoint of another size, a stranger's signature, or a changed one.
    note = drawn.choice([honest.notes[size], signed(made, STRANGER), flipped(honest.notes[size], drawn)])
    rewrite(path, rows, note)
    return None


def other(drawn: Random) -> bytes:
    return relinked(
        json.dumps({"kind": "decision", "content": {"number": -drawn.randrange(10**9)}}).encode(), bytes(32)
    )


def flip(bodies: Sequence[bytes], drawn: Random) -> list[tuple[int, bytes, bytes]]:
    rows, at = numbered(bodies), drawn.randrange(len(bodies))
    seq, body, digest = rows[at]
    match drawn.randrange(4):
        case 0:
            rows[at] = (seq, flipped(body, drawn), digest)
        case 1:
            rows[at] = (seq, body, flipped(digest, drawn))
        case 2:
            changed = flipped(body, drawn)
            rows[at] = (seq, changed, leaf_hash(changed))
        case _:  # careful: what it says is changed, and all after it is derived again
            entry = json.loads(body)
            entry["content"]["number"] = drawn.randrange(100, 10**9)
            changed = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode()
            rows = numbered(linked([*bodies[:at], changed, *bodies[at + 1 :]]))
    return rows


def delete(bodies: Sequence[bytes], drawn: Random) -> list[tuple[int, bytes, bytes]]:
    first = drawn.randrange(len(bodies))
    last = drawn.randrange(first + 1, len(bodies) + 1)
    left = [row for row in numbered(bodies) if not first <= row[0] < last]
    match drawn.randrange(3):
        case 0:
            return left
        case 1:
            return numbered([body for _, body, _ in left])
        case _:
            return numbered(linked([body for _, body, _ in left]))


def reorder(bodies: Sequence[bytes], drawn: Random) -> list[tuple[int, bytes, bytes]]:
    first, second = drawn.sample(range(len(bodies)), 2)
    swapped = list(bodies)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    return numbered(linked(swapped) if drawn.randrange(2) else swapped)


def fork(bodies: Sequence[bytes], drawn: Random) -> list[tuple[int, bytes, bytes]]:
    at = drawn.randrange(1, len(bodies))
    return numbered(linked([*bodies[:at], *(other(drawn) for _ in range(len(bodies) - at))]))
