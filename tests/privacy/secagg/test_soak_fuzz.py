"""No bytes of a stranger crash a decoder or a machine, move it on, or make it take memory beyond their size.

What is found goes into ``tests/vectors/fuzz``, as the run printed it; every entry is fed to every target from then on.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privacy.keys import signing
from privacy.secagg import client, coordinator, encoding
from privacy.secagg.coordinator import CoordinatorConfig, CoordinatorState
from privacy.secagg.effects import Aborted, Audit
from privacy.secagg.wire import Msk
from tests.privacy.secagg import fuzz
from tests.privacy.secagg.fuzz_engine import FoundError, Fuzzing, all_targets

ROOT = Path(__file__).parents[3]
CORPUS = sorted((ROOT / "tests" / "vectors" / "fuzz").glob("*.json"))
MESSAGES = 1_000_000
PARTS = 10
"""Runs that start anew, each from its own seed."""
PROCESSES = 2


@pytest.fixture
def fuzzing() -> Iterator[Fuzzing]:
    run = Fuzzing(all_targets())
    yield run
    run.close()


def test_past_finds_and_odd_messages(fuzzing: Fuzzing) -> None:
    assert CORPUS
    for path in CORPUS:
        kept = json.loads(path.read_text(encoding="utf-8"))
        for place in range(len(fuzzing.targets)):
            fuzzing.execute(bytes([place, kept["choice"]]) + bytes.fromhex(kept["hex"]))


def test_a_few_thousand_messages(fuzzing: Fuzzing) -> None:
    fuzzing.plain(3_000, seed=1)
    assert fuzzing.count == 3_000
    assert len(fuzzing.reached) == len(fuzzing.targets)
    # Messages that are all refused, or all believed, would prove nothing.
    assert {"accepted", "refused", "ignored"} <= set(fuzzing.totals)
    assert fuzzing.totals["refused"] > 1_000


def test_every_target_takes_the_message_that_it_waits_for(fuzzing: Fuzzing) -> None:
    for place, data in enumerate(fuzzing.seeds()):
        fuzzing.totals.clear()
        fuzzing.execute(data)
        name = fuzzing.targets[place].name
        over = any(phase in name for phase in ("DONE", "ABORTED", "FINISHED", "coordinator IDLE"))
        hopeless = name == "statement decode"  # an outline of a report
        assert set(fuzzing.totals) == {"ignored" if over else "refused" if hopeless else "accepted"}, name


def test_every_state_of_both_machines_is_a_target(fuzzing: Fuzzing) -> None:
    names = " ".join(target.name for target in fuzzing.targets)
    assert all(f"client {phase} " in names for phase in client.Phase)
    assert all(f"coordinator {phase} " in names for phase in coordinator.Phase)


def crash(patch: pytest.MonkeyPatch) -> None:
    """Text that is not UTF-8 is forgotten."""
    patch.setattr(encoding._Reader, "_text", lambda self, size: str(self._take(size), "utf-8"))


def forgery(patch: pytest.MonkeyPatch) -> None:
    """Signatures are not looked at."""
    patch.setattr(signing, "verify", lambda *_: None)


def go_on(patch: pytest.MonkeyPatch) -> None:
    """A refusal does not stop the site."""
    state = client.ClientState(client.Phase.SIGNED, None)
    patch.setattr(
        client,
        "_abort",
        lambda why, site="", *first: (state, (*first, Audit("aborted", site, why), Aborted(why, site))),
    )


def added_first(patch: pytest.MonkeyPatch) -> None:
    """A vector is added before it is checked."""
    row = coordinator.COLLECTIONS[coordinator.Phase.MSK]

    def take(config: CoordinatorConfig, state: CoordinatorState, message: Msk) -> Any:
        for sums in state.sums.values():
            sums[:] += 1
        return row.take(config, state, message)

    patch.setitem(coordinator.COLLECTIONS, coordinator.Phase.MSK, replace(row, take=take))


def memory(patch: pytest.MonkeyPatch) -> None:
    """The reader makes room before it looks how much is left."""
    take = encoding._Reader._take
    patch.setattr(encoding._Reader, "_take", lambda self, size: (bytearray(min(size, 2**26)), take(self, size))[1])


@pytest.mark.parametrize("planted", [crash, forgery, go_on, added_first, memory])
def test_planted_faults_are_found(
    planted: Callable[[pytest.MonkeyPatch], None], fuzzing: Fuzzing, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    with pytest.raises(FoundError) as found:
        fuzzing.plain(20_000, seed=1)
    monkeypatch.undo()
    entry = json.loads(str(found.value))
    place = next(i for i, target in enumerate(fuzzing.targets) if target.name == entry["target"])
    fuzzing.execute(bytes([place, entry["choice"]]) + bytes.fromhex(entry["hex"]))


def run(*arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.privacy.secagg.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr + done.stdout  # its last line says what came of it


@pytest.mark.soak
def test_atheris_finds_a_planted_crash() -> None:
    if not fuzz.installed():
        pytest.skip("there is no atheris for this Python on this platform")
    code, said = run("50000", "1", "--plant")
    assert code == 1, said
    assert "UnicodeDecodeError" in said


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_a_million_messages(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadPoolExecutor(PROCESSES) as pool:
        for code, said in pool.map(lambda seed: run(str(MESSAGES // PARTS), str(seed)), range(1, PARTS + 1)):
            with capsys.disabled():
                print(said.splitlines()[-1], flush=True)  # noqa: T201 -- a long run shows how far it is
            assert code == 0, said[-20_000:]
            assert f"{MESSAGES // PARTS:,} messages to" in said
    if not fuzz.installed():
        pytest.skip("no atheris for this Python on this platform: the million were seeded random changes")
