"""Lost unsynced writes: the power fails at 500 random points, and no acknowledged debit is lost."""

import shutil
import sys
from pathlib import Path
from random import Random

import pytest

from privacy.errors import FederationError
from privacy.store import database
from privacy.store.ledger import Ledger
from tests.privacy.store.power import ACKNOWLEDGED, DEBITS, Disk, compiled, recorded

LOSSES = 500
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(
    COMPILER is None or not sys.platform.startswith("linux"),
    reason="the recorder of writes and syncs needs Linux and a C compiler",
)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def lost(folder: Path, files: dict[str, bytes], acknowledged: int) -> int:
    """Returns how many acknowledged debits are gone from these files; all, if the ledger does not open."""
    written(folder, files)
    try:
        found = {debit.round for debit in Ledger(folder / "ledger.db").debits()}
    except FederationError:
        return acknowledged
    return len(set(range(acknowledged)) - found)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("recorder"), str(COMPILER))


def losses(folder: Path, library: Path, monkeypatch: pytest.MonkeyPatch, count: int, *more: str) -> list[int]:
    operations = recorded(folder / "ledger", library, *more)
    everything = Disk()
    for operation in operations:
        everything.do(operation)
    real = {path.name: path.read_bytes() for path in (folder / "ledger").iterdir() if not path.name.endswith("-shm")}
    assert everything.cut_off(Random(0), 2) == real, "the recording is complete"  # noqa: S311 - nothing is drawn
    assert sum(operation.name == ACKNOWLEDGED and operation.kind == "W" for operation in operations) == DEBITS
    monkeypatch.setattr(database, "_SYNCHRONOUS", "OFF")  # to look at what is left takes no disk
    drawn = Random(11)  # noqa: S311 - where the power fails, not a secret
    cuts = sorted(drawn.randrange(len(operations)) for _ in range(count))
    disk, acknowledged, found = Disk(), 0, []
    for position, operation in enumerate(operations):
        for _ in range(cuts.count(position)):
            left = disk.cut_off(drawn, drawn.choice([0, 0.5, 2, drawn.random()]))
            left.pop(ACKNOWLEDGED, None)
            found.append(lost(folder / "after", left, acknowledged))
        disk.do(operation)
        acknowledged += operation.name == ACKNOWLEDGED and operation.kind == "W"
    return found


def test_no_acknowledged_debit_is_lost(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert losses(tmp_path, library, monkeypatch, LOSSES) == [0] * LOSSES


def test_without_syncs_they_are(tmp_path: Path, library: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same ledger, except that it does not wait for the disk."""
    assert sum(losses(tmp_path, library, monkeypatch, 50, "OFF")) > 50
