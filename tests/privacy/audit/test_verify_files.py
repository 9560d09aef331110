"""`collegium verify` and the files around a report: what lies beside it, what is named, what is not there."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from privacy import command
from privacy.audit import schemas
from privacy.audit.html import page
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.store import evidence_files
from tests.privacy.audit import masked, sample

MODEL = b"a model"  # whose digest the sample claims
SIGNED = masked.signed_rounds()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder as far as `verify` looks at it."""
    (tmp_path / "transcript").mkdir()
    report = sample.signed(masked.predicate())
    (tmp_path / "report.dsse.json").write_bytes(report)
    (tmp_path / "report.html").write_bytes(page.render(report))
    (tmp_path / "model.safetensors").write_bytes(MODEL)
    (tmp_path / "transcript" / "secagg.jsonl").write_bytes(SIGNED)
    return tmp_path


def verify(*arguments: str | Path) -> int:
    return command._outcome(["verify", "--self", *map(str, arguments)])


@pytest.mark.parametrize("name", ["report.dsse.json", "report.html"])
def test_files_beside_the_report_are_found(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(folder / name) == 0
    out, err = capsys.readouterr()
    assert "holds      secagg.rounds       proved    the roster's keys signed 15 sums over 3 or 4 sites" in out
    assert "checking the signatures of 16 attempts" in err


def test_a_page_alone_is_unchecked_and_says_what_it_needs(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path_factory.mktemp("alone") / "report.html"
    alone.write_bytes((folder / "report.html").read_bytes())
    assert verify(alone, "--model", folder / "model.safetensors") == 3
    assert "unchecked  secagg.rounds" in capsys.readouterr().out
    named = ("--model", folder / "model.safetensors", "--transcript", folder / "transcript" / "secagg.jsonl")
    assert verify(alone, *named) == 0


def test_a_changed_transcript_beside_the_report_fails(folder: Path) -> None:
    (folder / "transcript" / "secagg.jsonl").write_bytes(SIGNED[:-1])
    assert verify(folder / "report.html") == 1


def test_a_named_transcript_wins_over_the_one_beside(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(b"")
    assert verify(folder / "report.html", "--transcript", other) == 1


def test_a_named_transcript_that_is_not_there_is_unusable_input(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder / "report.html", "--transcript", folder / "nowhere") == 2
    assert len(capsys.readouterr().err.strip().splitlines()) <= 2


@pytest.mark.parametrize("name", ["model.safetensors", TRANSCRIPT_FILE, "report.html"])
@pytest.mark.parametrize("kind", ["a pipe", "a device"])
def test_what_is_no_file_is_unusable_input_and_nobody_waits_for_it(
    folder: Path, name: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / name).unlink()
    if kind == "a pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("/dev/zero")
    assert verify(folder / "report.html") == 2
    assert f"{name} is a pipe or a device, not a file" in capsys.readouterr().err


def test_a_model_larger_than_memory_is_compared_all_the_same(folder: Path) -> None:
    """In a process with 1 GiB of memory to address, of which Python, numpy and scipy take half."""
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(2**31)  # holes: no disk is taken
    limited = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))"
    program = f"{limited}; from privacy.command import main; main()"
    command = [sys.executable, "-c", program, "verify", "--self", "report.html"]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)
    assert found.returncode == 1, found.stderr
    assert re.search("fails +model.digest .* the model file has SHA-256 a7c744c13cc101ed", found.stdout)


def test_a_report_that_is_too_large_is_not_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (folder / "report.html").open("wb") as file:
        file.truncate(2**40)
    assert verify(folder / "report.html") == 2
    assert "report.html is larger than 16 MiB" in capsys.readouterr().err


def test_a_transcript_that_is_too_large_is_unusable_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evidence_files.FILES, "transcript", (TRANSCRIPT_FILE, len(SIGNED) - 1))
    assert verify(folder / "report.html") == 2


@pytest.mark.parametrize(("change", "code"), [(b"", 2), (b'"sig":"A', 1)], ids=["cut short", "another signature"])
def test_what_ends_without_a_verdict_prints_one_json_object(
    folder: Path, capsys: pytest.CaptureFixture[str], change: bytes, code: int
) -> None:
    path = folder / "report.dsse.json"
    data = path.read_bytes()
    at = data.index(b'"sig":"')
    path.write_bytes(data[:at] + change + data[at + len(change) :] if change else data[:-9])
    assert command._outcome(["verify", str(path), "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    schemas.check("verify-v1", found)
    assert (found["ok"], found["authentic"], found["claims"]) == (False, False, [])
    assert found["error"]
