"""`collegium report`: drawn again, signed by one more, and as an annex to an assessment; `verify --threshold`."""

from pathlib import Path

import pytest

from privacy import command
from privacy.audit import envelope, report
from privacy.audit.html import page
from privacy.keys.signing import SigningKey, parse_trust
from privacy.store import report_files
from privacy.store.run_folder import RunFolder
from tests.privacy.audit import masked, sample
from tests.privacy.secagg.parties import identity

MODEL = b"a model"  # whose digest the sample claims
SEED = bytes([42]) * 32
OFFICER = SigningKey(SEED)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder with a report that two sites signed."""
    body = masked.predicate()
    body["cosigners"] = report.cosigner_entries({site: identity(site).public_key for site in masked.SITES})
    signed = report.sign(body, sample.MODEL_SHA256, sample.KEY)
    for site in ("cleveland", "va"):
        signed = envelope.add(signed, identity(site))
    made = RunFolder.create(tmp_path / "run")
    made.write("model.safetensors", MODEL)
    made.write("transcript/secagg.jsonl", masked.signed_rounds())
    report_files.write(made, signed)
    return made


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The key file of a data-protection officer."""
    home = tmp_path / "officer"
    home.mkdir(mode=0o700)
    (home / "dpo.key").write_bytes(SEED)
    (home / "dpo.key").chmod(0o600)
    return home / "dpo.key"


def collegium(*arguments: str | Path) -> int:
    return command._outcome(list(map(str, arguments)))


def verify(folder: RunFolder, *arguments: str | Path, name: str = "report.html") -> int:
    return collegium("verify", folder.path / name, "--trust", folder.path / "trusted-keys.txt", *arguments)


def test_a_page_that_was_changed_is_drawn_again(folder: RunFolder) -> None:
    folder.write("report.html", b"<p>nothing</p>")
    assert collegium("report", folder.path) == 0
    assert folder.read("report.html") == page.render(folder.read("report.dsse.json"))


@pytest.mark.parametrize(("threshold", "code"), [("1", 0), ("3", 0), ("4", 1), ("5", 1), ("6", 2), ("0", 2)])
def test_a_threshold_is_the_reader_s(
    threshold: str, code: int, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(folder, "--threshold", threshold) == code
    out = capsys.readouterr().out
    assert code == 2 or "cleveland, va (not: hungary, switzerland)" in out or "signed by 3 of the 5" in out


def test_a_threshold_without_keys_is_refused(folder: RunFolder) -> None:
    assert collegium("verify", folder.path / "report.html", "--self", "--threshold", "2") == 2


def test_an_officer_adds_a_signature(folder: RunFolder, key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert collegium("report", folder.path, "--countersign", key) == 0
    assert OFFICER.keyid in capsys.readouterr().out
    signed = folder.read("report.dsse.json")
    assert OFFICER.keyid in envelope.decode(signed).keyids
    assert folder.read("report.html") == page.render(signed)
    assert OFFICER.public_key in parse_trust(folder.read("trusted-keys.txt").decode()).cosigners
    assert verify(folder, "--threshold", "4") == 0
    before = {name: folder.read(name) for name in ("report.dsse.json", "trusted-keys.txt")}
    assert collegium("report", folder.path, "--countersign", key) == 0
    assert {name: folder.read(name) for name in before} == before


def test_who_does_not_trust_the_officer_does_not_believe_the_report(folder: RunFolder, key: Path) -> None:
    keys = folder.read("trusted-keys.txt")
    collegium("report", folder.path, "--countersign", key)
    folder.write("trusted-keys.txt", keys)
    assert verify(folder) == 1


@pytest.mark.parametrize("what", ["--countersign", "--dpia"])
def test_nothing_is_signed_or_written_of_a_report_that_does_not_hold(
    what: str, folder: RunFolder, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = folder.read("report.dsse.json")
    folder.write("model.safetensors", b"another model")
    assert collegium("report", folder.path, what, key if what == "--countersign" else tmp_path / "annex.md") == 1
    assert "model.digest does not hold, so nothing was signed or written" in capsys.readouterr().err
    assert folder.read("report.dsse.json") == before
    assert not (tmp_path / "annex.md").exists()


def test_a_key_that_others_can_read_does_not_sign(folder: RunFolder, key: Path) -> None:
    key.chmod(0o644)
    assert collegium("report", folder.path, "--countersign", key) == 2
    key.chmod(0o600)
    key.write_bytes(b"short")
    assert collegium("report", folder.path, "--countersign", key) == 2


def test_the_annex_says_what_the_report_says_and_decides_nothing(folder: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "annex.md"
    assert collegium("report", folder.path, "--dpia", path) == 0
    text = path.read_text()
    for title in ("35(7)(a)", "35(7)(b)", "35(7)(c) and (d)", "EDPB", "800-226", "Not protected", "Assumed"):
        assert title in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) > 12
    assert "cleveland, hungary, switzerland, va" in text
    assert "anonymous" not in text


def test_markup_in_a_report_is_text_in_the_annex(tmp_path: Path) -> None:
    body = sample.plain_predicate()
    body["run"]["title"] = "<script>a|b</script> [x](y) *z*"
    made = RunFolder.create(tmp_path / "run")
    made.write("model.safetensors", MODEL)
    report_files.write(made, report.sign(body, sample.MODEL_SHA256, sample.KEY))
    assert collegium("report", made.path, "--dpia", tmp_path / "annex.md") == 0
    assert r"\<script\>a\|b\</script\> \[x\](y) \*z\*" in (tmp_path / "annex.md").read_text()
