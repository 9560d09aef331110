"""Loss of power: a disk that keeps what was synced, and of the rest whatever chance leaves, sector by sector.

``recorder.c``, preloaded, writes down every write, sync and unlink of a process; a ``Disk`` replays them up to any
point and is then cut off. Names of files are kept only if the folder was synced after them, each for itself: no file
system is worse.

As a program, ``python -m tests.privacy.store.power FOLDER [OFF]`` is the process to record: it debits a ledger and
appends to ``acknowledged`` once a reservation has returned.
"""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from privacy.store import database
from privacy.store.ledger import Ledger
from tests.privacy.store.example import CHEAP, HEARTS, debit

ACKNOWLEDGED = "acknowledged"
DEBITS = 40
SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """One record of ``recorder.c``."""

    kind: str
    name: str
    offset: int
    data: bytes


@dataclass
class File:
    """What is safe of a file, and what came after."""

    safe: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)

    def after(self, drawn: Random, odds: float) -> bytes:
        content = bytearray(self.safe)
        for operation in self.pending:
            if operation.kind == "T":
                if drawn.random() < odds:
                    _cut(content, operation.offset)
                continue
            start = operation.offset
            while start < operation.offset + len(operation.data):
                end = min((start // SECTOR + 1) * SECTOR, operation.offset + len(operation.data))
                if drawn.random() < odds:
                    _put(content, start, operation.data[start - operation.offset : end - operation.offset])
                start = end
        return bytes(content)


class Disk:
    """Files in a folder, as far as a disk has them."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}  # as the process sees them
        self._safe: dict[str, File] = {}  # names that were synced
        self._pending: list[tuple[str, File | None]] = []

    def do(self, operation: Operation) -> None:
        name = operation.name
        match operation.kind:
            case "C":
                self._files[name] = File()
                self._pending.append((name, self._files[name]))
            case "U":
                del self._files[name]
                self._pending.append((name, None))
            case "S" if name == ".":
                self._safe, self._pending = dict(self._files), []
            case "S":
                file = self._files[name]
                file.safe, file.pending = bytearray(file.after(Random(0), 2)), []  # noqa: S311 - all of it
            case _:
                self._files[name].pending.append(operation)

    def cut_off(self, drawn: Random, odds: float) -> dict[str, bytes]:
        """Returns the files after the power went: what is not safe survives with these odds, 2 meaning surely."""
        names = dict(self._safe)
        for name, file in self._pending:
            if drawn.random() < odds:
                if file is None:
                    names.pop(name, None)
                else:
                    names[name] = file
        return {name: file.after(drawn, odds) for name, file in names.items()}


def _cut(content: bytearray, size: int) -> None:
    content[size:] = bytes(max(0, size - len(content)))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        _cut(content, offset)
    content[offset : offset + len(data)] = data


def parsed(recording: bytes) -> Iterator[Operation]:
    position = 0
    while position < len(recording):
        end = recording.index(b"\n", position)
        kind, name, offset, length = recording[position:end].decode().split(" ")
        position = end + 1 + int(length)
        yield Operation(kind, name, int(offset), recording[end + 1 : position])


def compiled(folder: Path, compiler: str) -> Path:
    """Compiles the recorder."""
    library = folder / "recorder.so"
    source = Path(__file__).with_name("recorder.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return library


def recorded(folder: Path, library: Path, *more: str) -> list[Operation]:
    """Runs the program below under the recorder, in ``folder``."""
    folder.mkdir()
    record = folder.with_suffix(".record")
    preload = {"LD_PRELOAD": str(library), "RECORDED": str(folder), "RECORD": str(record)}
    command = [sys.executable, "-m", "tests.privacy.store.power", str(folder), *more]
    subprocess.run(command, env={**os.environ, **preload}, check=True)
    return list(parsed(record.read_bytes()))


def main(folder: Path) -> None:
    """Debits; from the middle on somebody else keeps the file open, so that the write-ahead log grows."""
    ledger = Ledger.create(folder / "ledger.db")
    ledger.declare(HEARTS)
    acknowledged = os.open(folder / ACKNOWLEDGED, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as keeper:
        for number in range(DEBITS):
            links = ledger.reserve([debit(number, event=CHEAP)])
            os.write(acknowledged, f"{number}\n".encode())
            if number % 3 == 0:
                ledger.release(links)
            if number == DEBITS // 2:
                keeper.execute("SELECT count(*) FROM entries").fetchone()


if __name__ == "__main__":
    database._SYNCHRONOUS = sys.argv[2] if len(sys.argv) > 2 else database._SYNCHRONOUS
    main(Path(sys.argv[1]))
