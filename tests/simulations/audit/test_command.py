"""`collegium audit` as a person meets it: what it adds to a run, what it leaves alone, what it refuses."""

import base64
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from privacy import command
from privacy.audit import statement
from privacy.audit.audited import original
from privacy.audit.envelope import decode
from privacy.audit.html import page
from privacy.audit.verify import embedded_envelope
from privacy.keys.signing import SigningKey
from privacy.store.run_folder import RunFolder
from simulations.audit import command as audit_command
from simulations.audit.command import AUDIT_FILE, AUDIT_PAGE_FILE, AUDIT_TRUST_FILE
from simulations.audit.measure import Measured
from simulations.audit.subject import Subject

QUICK = ("--canaries", "2048")


def collegium(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command._outcome([*arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and the same with an audit."""
    folder = tmp_path_factory.mktemp("audit")
    run, audited = folder / "run", folder / "audited"
    assert command._outcome(["simulate", "hospitals", "--rounds", "2", "--epsilon", "3", "--out", str(run)]) == 0
    shutil.copytree(run, audited)
    assert command._outcome(["audit", str(audited), *QUICK]) == 0
    return folder


@pytest.fixture
def audited(home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(home / "audited", tmp_path / "audited"))


def body(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    signed = embedded_envelope(data) if path.suffix == ".html" else data
    return statement.decode(decode(signed).payload).predicate


def test_the_run_is_as_it_was_and_the_audit_lies_beside_it(home: Path) -> None:
    for path in (home / "run").rglob("*"):
        if path.is_file() and path.parent.name != "log":
            assert (home / "audited" / path.relative_to(home / "run")).read_bytes() == path.read_bytes()
    new = {path.name for path in (home / "audited").rglob("*")} - {path.name for path in (home / "run").rglob("*")}
    assert new == {AUDIT_FILE, AUDIT_PAGE_FILE, AUDIT_TRUST_FILE, "canaries.jsonl"}
    signed = (home / "audited" / AUDIT_FILE).read_bytes()
    assert original(signed).data == (home / "run" / "report.dsse.json").read_bytes()
    assert (home / "audited" / AUDIT_PAGE_FILE).read_bytes() == page.render(signed)


def test_what_was_measured_is_in_the_report(home: Path) -> None:
    claims = {claim["id"]: claim for claim in body(home / "audited" / AUDIT_FILE)["claims"]}
    log = (home / "audited" / "log" / "events.jsonl").read_text()
    assert claims["audit.one_run"]["commitment"] in log, "the coins were committed to on disk"
    assert claims["audit.black_box"]["commitment"] in log
    assert {"audit.one_run", "audit.black_box", "audit.membership", "audit.inversion"} <= set(claims)
    assert claims["audit.one_run"]["canaries"] == 2048
    assert claims["audit.black_box"]["canaries"] <= 400
    assert {one["who"] for one in claims["audit.membership"]["sites"]} == {
        "cleveland",
        "hungarian",
        "switzerland",
        "va",
    }


def test_a_stranger_verifies_it_with_the_keys_beside_it(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trust = ("--trust", str(audited / AUDIT_TRUST_FILE))
    for name in (AUDIT_FILE, AUDIT_PAGE_FILE):
        code, out, _ = collegium(capsys, "verify", str(audited / name), *trust)
        assert code == 0, out
        assert "AUTHENTIC" in out
    code, out, _ = collegium(capsys, "verify", str(audited / AUDIT_FILE), "--trust", str(audited / "trusted-keys.txt"))
    assert code != 0, "the run's keys alone do not vouch for the auditor"


def test_edited_scores_are_found(audited: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = audited / "transcript" / "canaries.jsonl"
    lines = [json.loads(line) for line in scores.read_text().splitlines()]
    lines[0]["scores"] = ["0"] * len(lines[0]["scores"])
    scores.write_text("".join(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n" for line in lines))
    code, out, _ = collegium(capsys, "verify", str(audited / AUDIT_FILE), "--self")
    assert code == 1
    assert "fails      audit.one_run" in out


def test_a_second_audit_by_a_lasting_key_takes_the_place_of_the_first(
    audited: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    key = folder / "auditor.key"
    key.write_bytes(bytes(range(32)))
    key.chmod(0o600)
    code, out, err = collegium(capsys, "audit", str(audited), *QUICK, "--key", str(key), "--json")
    assert code == 0, err
    assert json.loads(out)["ok"]
    signer = body(audited / AUDIT_FILE)["signer"]
    assert signer["role"] == "auditor"
    assert base64.b64decode(signer["public_key"]) == SigningKey(key.read_bytes()).public_key
    key.chmod(0o644)
    code, _, err = collegium(capsys, "audit", str(audited), *QUICK, "--key", str(key))
    assert code == 2
    assert "auditor.key" in err


class KilledError(BaseException):
    """The process, at that point."""


@pytest.mark.parametrize("killed_after", range(8))
def test_an_audit_that_is_killed_leaves_no_report_beside_the_scores_of_another(
    audited: Path, monkeypatch: pytest.MonkeyPatch, killed_after: int
) -> None:
    """Before and after everything that is written or removed."""
    subject, key = Subject.of(RunFolder(audited)), SigningKey(bytes(32))
    claims = tuple(one for one in body(audited / AUDIT_FILE)["claims"] if one["id"].startswith("audit."))
    scores = audited / "transcript" / "canaries.jsonl"
    other = Measured(claims, scores.read_bytes() + b"\n", ())
    steps = iter(range(killed_after))

    def stepping(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any) -> Any:
            if next(steps, None) is None:
                raise KilledError
            return real(*given)

        return step

    monkeypatch.setattr(RunFolder, "write", stepping(RunFolder.write))
    monkeypatch.setattr(RunFolder, "remove", stepping(RunFolder.remove))
    with suppress(KilledError):
        audit_command._written(subject.folder, subject, other, key)
    reports = [audited / name for name in (AUDIT_FILE, AUDIT_PAGE_FILE) if (audited / name).exists()]
    ours = scores.read_bytes() == other.scores
    assert [base64.b64decode(body(path)["signer"]["public_key"]) == key.public_key for path in reports] == [
        ours for _ in reports
    ]
    assert reports or 0 < killed_after < 7


def test_what_cannot_be_audited_is_refused_and_nothing_is_written(
    audited: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refused(*arguments: str) -> str:
        code, _, err = collegium(capsys, "audit", *arguments)
        assert code == 2
        assert len(err.splitlines()) <= 2
        return err

    assert "takes a run folder" in refused()
    assert "cannot be read" in refused(str(tmp_path / "nowhere"))
    (audited / AUDIT_FILE).unlink()
    settings = (audited / "run.toml").read_text()
    (audited / "run.toml").write_text(settings.replace('scenario = "hospitals"', 'scenario = "digits"'))
    assert "other settings" in refused(str(audited))
    (audited / "run.toml").write_text("nothing")
    assert "run.toml" in refused(str(audited))
    (audited / "run.toml").write_text(settings)
    model = audited / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    assert "does not hold" in refused(str(audited))
    assert not (audited / AUDIT_FILE).exists()
