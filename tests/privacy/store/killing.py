"""Kills processes that release, at random moments, and compares what left with what was paid for.

``python -m tests.privacy.store.killing FOLDER KILLS SEED [unpaid]`` prints one JSON object. A release is a line in a
file that is synced like any other thing that left. Two processes release at a time, so that one dies while the other
waits for its lock. ``unpaid`` releases first and reserves then: the control that shows that this would be seen.
"""

import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path
from random import Random
from typing import NoReturn

from privacy.store.books import State
from privacy.store.ledger import Ledger
from tests.privacy.store.example import CHEAP, HEARTS, debit


def release(ledger: Ledger, released: int, run: str, number: int, *, unpaid: bool) -> None:
    """Reserves, releases and marks as released."""

    def send() -> None:
        os.write(released, f"{run}/{number}\n".encode())
        os.fsync(released)

    if unpaid:
        send()
        time.sleep(0.001)
    links = ledger.reserve([debit(number, event=CHEAP, run=run)])
    if not unpaid:
        time.sleep(0.001)  # sending takes a moment
        send()
    ledger.release(links)


def started(folder: Path, run: str, *, unpaid: bool) -> tuple[int, int]:
    """Forks a process that releases until somebody kills it; the pipe says when it has opened the ledger."""
    opened, say = os.pipe()
    child = os.fork()
    if child == 0:
        child_main(folder, run, say, unpaid=unpaid)
    os.close(say)
    return child, opened


def child_main(folder: Path, run: str, say: int, *, unpaid: bool) -> NoReturn:
    try:
        ledger = Ledger(folder / "ledger.db")
        released = os.open(folder / "released", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(say, b"1")
        for number in itertools.count(1):
            release(ledger, released, run, number, unpaid=unpaid)
    finally:
        os._exit(1)  # an error, and never the parent's code


def main(folder: Path, kills: int, seed: int, *, unpaid: bool) -> dict[str, int]:
    drawn = Random(seed)  # noqa: S311 - when to kill, not a secret
    Ledger.create(folder / "ledger.db").declare(HEARTS)
    failed = 0
    for number in range(0, kills, 2):
        children = [started(folder, f"{number + place}", unpaid=unpaid) for place in range(2)]
        for child, opened in children:
            if drawn.random() < 0.9:  # the others die while they open it
                os.read(opened, 1)
            time.sleep(drawn.uniform(0, 0.008))
            os.kill(child, signal.SIGKILL)
            failed += not os.WIFSIGNALED(os.waitpid(child, 0)[1])
            os.close(opened)
    with Ledger(folder / "ledger.db").reading() as books:
        lines = list(books.lines.values())
    paid = {f"{line.debit.run}/{line.debit.round}" for line in lines}
    left = set((folder / "released").read_text().split())
    marked = {f"{line.debit.run}/{line.debit.round}" for line in lines if line.state is State.RELEASED}
    return {
        "kills": kills,
        "failed": failed,
        "released": len(left),
        "paid": len(paid),
        "released without a debit": len(left - paid),
        "marked as released and not": len(marked - left),
        "paid and never released": len(paid - left),
    }


if __name__ == "__main__":
    told = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), unpaid=sys.argv[4:] == ["unpaid"])
    sys.stdout.write(json.dumps(told))
