"""``collegium federation``: from a draft to an adopted charter and its next version, in files."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from privacy import command
from privacy.charter.signatures import decode
from tests.privacy.charter.example import PENS, officer

EXAMPLE = (Path(__file__).parents[3] / "docs" / "examples" / "charter-hospitals.toml").read_text(encoding="utf-8")
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """Four officers with keys of their own, a draft, and an unsigned charter."""
    monkeypatch.chdir(tmp_path)
    head, _, _ = EXAMPLE.partition("[[officers]]")
    draft = head
    for name in HOSPITALS:
        code, out, _ = ran(capsys, "key", "--out", f"{name}/officer.key")
        assert code == 0
        draft += f'[[officers]]\nname = "officer of {name}"\nsite = "{name}"\n{out}\n'
    Path("draft.toml").write_text(draft, encoding="utf-8")
    assert ran(capsys, "init", "draft.toml", "--out", "charter.json")[0] == 0
    return tmp_path


def ran(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command._outcome(["federation", *arguments])
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    code, out, _ = ran(capsys, "show", *arguments, "--json")
    return code, json.loads(out)


def pens(capsys: pytest.CaptureFixture[str], *names: str, charter: str = "charter.json", previous: str = "") -> None:
    more = ["--previous", previous] if previous else []
    for name in names:
        assert ran(capsys, "sign", charter, "--key", f"{name}/officer.key", *more)[0] == 0


def test_from_a_draft_to_an_adopted_charter(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, told = shown(capsys, "charter.json")
    assert (code, told["adopted"], told["signed_by"]) == (3, False, [])
    pens(capsys, "va", "cleveland")
    code, told = shown(capsys, "charter.json")
    assert (code, told["missing"]) == (3, ["1 more of its own officers must sign (2 of 3 have)"])
    pens(capsys, "hungarian")
    code, told = shown(capsys, "charter.json")
    assert (code, told["adopted"], len(told["signed_by"])) == (0, True, 3)
    code, out, _ = ran(capsys, "show", "charter.json")
    assert code == 0
    assert "a sum may be of only 3 sites" in out
    assert "Version 1 is adopted." in out
    assert not list(home.rglob("*.part"))


def test_the_next_version_needs_the_one_before(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, told = ran(capsys, "init", "draft.toml", "--out", "second.json", "--previous", "charter.json")
    assert (code, "not adopted" in told, (home / "second.json").exists()) == (1, True, False)
    pens(capsys, *HOSPITALS[:3])
    assert ran(capsys, "init", "draft.toml", "--out", "second.json", "--previous", "charter.json")[0] == 0
    pens(capsys, *HOSPITALS[1:], charter="second.json", previous="charter.json")
    code, told_of = shown(capsys, "second.json", "--previous", "charter.json")
    assert (code, told_of["charter"]["version"], told_of["charter"]["previous"]) == (
        0,
        2,
        shown(capsys, "charter.json")[1]["digest"],
    )
    code, told_of = shown(capsys, "second.json")
    assert (code, "version 1 was not given" in told_of["missing"][0]) == (3, True)
    assert ran(capsys, "show", "second.json", "--previous", "second.json")[0] == 1


def test_init_prints_the_digest(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = ran(capsys, "init", "draft.toml", "--out", "again.json")
    assert code == 0
    assert re.fullmatch(r"[0-9a-f]{64}\n", out)
    assert (home / "again.json").read_bytes() == (home / "charter.json").read_bytes()


def test_nothing_is_overwritten(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pens(capsys, "va")
    before = (home / "charter.json").read_bytes()
    code, _, told = ran(capsys, "init", "draft.toml", "--out", "charter.json")
    assert (code, "exists" in told) == (2, True)
    pens(capsys, "va")  # has signed already
    assert (home / "charter.json").read_bytes() == before
    code, _, told = ran(capsys, "key", "--out", "va/officer.key")
    assert (code, "exists" in told) == (2, True)


def test_a_wrong_signature_is_told_and_nothing_added_to_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    charter = home / "charter.json"
    forged = decode(charter.read_bytes()).signed_by(PENS["evil"]).encode()
    charter.write_bytes(forged)
    for arguments in (("show", "charter.json"), ("sign", "charter.json", "--key", "va/officer.key")):
        code, _, told = ran(capsys, *arguments)
        assert (code, "no officer's" in told) == (1, True)
    assert charter.read_bytes() == forged


def test_keys_that_others_could_read_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (home / "charter.json").read_bytes()
    assert (home / "va" / "officer.key").stat().st_mode & 0o777 == 0o600
    (home / "va" / "officer.key").chmod(0o640)
    code, _, told = ran(capsys, "sign", "charter.json", "--key", "va/officer.key")
    assert (code, "open to other users" in told, len(told.splitlines())) == (2, True, 2)
    assert (home / "charter.json").read_bytes() == before


def test_a_strangers_key_signs_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert home.exists()
    assert ran(capsys, "key", "--out", "stranger/officer.key")[0] == 0
    code, _, told = ran(capsys, "sign", "charter.json", "--key", "stranger/officer.key")
    assert (code, "key of no officer" in told) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("init", "nowhere.toml", "--out", "x.json"), "cannot be read"),
        (("init", "draft.toml", "--out", "nowhere/x.json"), "cannot be written"),
        (("init", "binary", "--out", "x.json"), "is not text"),
        (("init", "draft.toml"), "--out"),
        (("sign", "draft.toml", "--key", "va/officer.key"), "draft.toml: "),
        (("sign", "charter.json", "--key", "va/nothing.key"), "cannot be read"),
        (("sign", "charter.json", "--key", "va/short.key"), "not an officer's key"),
        (("show", "draft.toml"), "draft.toml: "),
        (("show", "va"), "is a folder"),
    ],
)
def test_plain_lines_for_what_makes_no_sense(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    (home / "binary").write_bytes(b"\xff")
    (home / "va" / "short.key").touch(mode=0o600)
    code, out, told = ran(capsys, *arguments)
    assert (code, out, said in told) == (2, "", True)
    assert len(told.splitlines()) <= 2
    assert not list(home.rglob("*.part"))
    assert not (home / "x.json").exists()


def test_a_person_is_one_officer_line(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = (home / "draft.toml").read_text(encoding="utf-8")
    twice = officer("va", "officer of va")
    (home / "twice.toml").write_text(
        draft + f'[[officers]]\nname = "{twice["name"]}"\nsite = "va"\nkey = "{twice["key"]}"\n', encoding="utf-8"
    )
    code, _, told = ran(capsys, "init", "twice.toml", "--out", "x.json")
    assert (code, "listed twice" in told) == (2, True)
