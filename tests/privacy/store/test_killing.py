"""kill -9 at random points while releasing: nothing ever leaves that was not paid for."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 - only a parent for folders with random names


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: a kill loses nothing that was written, so waiting for a disk shows nothing."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


def killed(folder: Path, kills: int, *more: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.privacy.store.killing", str(folder), str(kills), "3", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, int] = json.loads(done.stdout)
    return told


def check(told: dict[str, int], kills: int) -> None:
    assert (told["kills"], told["failed"]) == (kills, 0)
    assert told["released without a debit"] == told["marked as released and not"] == 0
    assert told["released"] > 0
    assert told["paid and never released"] > 0, "no kill came between the debit and the release"


def test_nothing_leaves_without_a_debit(folder: Path) -> None:
    check(killed(folder, 200), 200)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_nothing_leaves_without_a_debit_in_the_long_run(folder: Path) -> None:
    check(killed(folder, 2000), 2000)


def test_the_wrong_order_would_be_seen(folder: Path) -> None:
    assert killed(folder, 40, "unpaid")["released without a debit"] > 0
