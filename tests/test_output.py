"""An output that is full, or that nobody reads any more: a plain line, and never the code of a claim that fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMANDS = [["site", "policy", "show", "hospital.cedar"], ["federation", "application"], ["--version"]]


def _command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-c", "from privacy.command import main; main()", *arguments]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_output_is_one_plain_line(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(_command(arguments), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "the output cannot be written or read: No space left on device\n")


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_an_output_that_nobody_reads_is_no_claim_that_fails(arguments: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(_command(arguments), stdout=closed, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (141, "")
