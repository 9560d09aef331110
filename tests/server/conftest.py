"""What several tests of the server stand on."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.rounds import Schedule
from strategies.fed_avg import FedAvg
from tests.server.resuming import Sites, live

MEMORY = Path("/dev/shm")  # noqa: S108 - only a parent for folders with random names


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where that is possible: a kill loses nothing that was written, so waiting for a disk shows nothing."""
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as made:
        yield Path(made)


@pytest.fixture
def done(tmp_path: Path) -> Path:
    """A run of two rounds in a folder."""
    live(tmp_path, Sites(), FedAvg(), Schedule(2, 0))
    return tmp_path
