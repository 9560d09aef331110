"""kill -9 at random moments of a run: it goes on from its last commit, to the very model of a run left alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def killed(folder: Path, runs: int, *modes: str) -> dict[str, int]:
    command = [sys.executable, "-m", "tests.server.killing", str(folder), str(runs), "3", *modes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told: dict[str, int] = json.loads(done.stdout)
    return told


def test_a_killed_coordinator_goes_on_to_the_same_model(folder: Path) -> None:
    assert killed(folder, 3, "masked") | {"half-done": 0} == {"kills": 4, "half-done": 0, "same": 3}


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("modes", [[], ["masked"]], ids=["in the clear", "masked"])
def test_a_killed_coordinator_goes_on_to_the_same_model_twenty_times(folder: Path, modes: list[str]) -> None:
    told = killed(folder, 20, *modes)
    assert (told["kills"], told["same"]) == (30, 20)
    assert told["half-done"] > 0, "no kill came within a round"


@pytest.mark.soak
def test_a_run_that_forgot_its_state_would_be_seen(folder: Path) -> None:
    assert killed(folder, 6, "forgetful")["same"] < 6
