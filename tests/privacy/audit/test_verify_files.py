"""`collegium verify` and the files around a report: what lies beside it, what is named, what is not there."""

from pathlib import Path

import pytest

from privacy import command
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


def test_a_transcript_that_is_too_large_is_unusable_input(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(evidence_files.FILES, "transcript", (TRANSCRIPT_FILE, len(SIGNED) - 1))
    assert verify(folder / "report.html") == 2
