"""``collegium federation``: from a draft to an adopted charter and its next version, in files."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from privacy import command
from privacy.charter.document import Server, Site
from privacy.charter.signatures import decode
from privacy.keys.signing import keyid
from privacy.store.application import application_digest
from privacy.store.site_keys import read_enrolment
from strategies.study import read_study
from tests.privacy.charter.example import PENS, officer

EXAMPLE = (Path(__file__).parents[3] / "docs" / "examples" / "charter-hospitals.toml").read_text(encoding="utf-8")
STUDY = (Path(__file__).parents[3] / "simulations" / "scenarios" / "hospitals.toml").read_text(encoding="utf-8")
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


def test_only_the_digest_that_was_read_is_signed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    read = shown(capsys, "charter.json")[1]["digest"]
    before = (home / "charter.json").read_bytes()
    code, _, told = ran(capsys, "sign", "charter.json", "--key", "va/officer.key", "--digest", "00" * 32)
    assert (code, "another charter" in told, read in told) == (1, True, True)
    assert (home / "charter.json").read_bytes() == before
    code, told, _ = ran(capsys, "sign", "charter.json", "--key", "va/officer.key", "--digest", read)
    assert (code, read in told) == (0, True)


def test_show_tells_every_key_and_what_changed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pens(capsys, *HOSPITALS[:3])
    first = decode((home / "charter.json").read_bytes()).charter
    told = ran(capsys, "show", "charter.json")[1]
    ids = [keyid(first.server.identity), *(keyid(one.identity) for one in first.sites.values())]
    assert all(one in told for one in [*ids, *(officer.keyid for officer in first.officers)])
    draft = (home / "draft.toml").read_text(encoding="utf-8")
    identity = base64.b64encode(PENS["evil"].public_key).decode()
    (home / "draft.toml").write_text(
        re.sub(r'(id = "va"\nidentity = )"[^"]+"', rf'\1"{identity}"', draft), encoding="utf-8"
    )
    assert ran(capsys, "init", "draft.toml", "--out", "second.json", "--previous", "charter.json")[0] == 0
    told = ran(capsys, "show", "second.json", "--previous", "charter.json")[1]
    since = told.partition("Since version 1:\n")[2].splitlines()[:3]
    old = f"-   identity   va: {keyid(first.sites['va'].identity)}"
    assert since == [old, f"+   identity   va: {PENS['evil'].keyid}", "Signatures that hold: none"]


def test_a_draft_names_enrolment_files_beside_it(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draft = (home / "draft.toml").read_text(encoding="utf-8")
    enrolled = [("server", "hub"), *(("site", name) for name in HOSPITALS)]
    (home / "drafts").mkdir()
    for role, name in enrolled:
        code = command._outcome(
            ["site", "enroll", "--site", name, "--federation", "hospitals", "--role", role, "--out", f"drafts/{name}"]
        )
        assert code == 0
        draft = re.sub(rf'id = "{name}"\n(?:.+\n)+', f'enrolment = "{name}/enrol-{name}.json"\n', draft)
    (home / "drafts" / "draft.toml").write_text(draft, encoding="utf-8")
    capsys.readouterr()
    code, out, _ = ran(capsys, "init", "drafts/draft.toml", "--out", "enrolled.json")
    charter = decode((home / "enrolled.json").read_bytes()).charter
    assert (code, out) == (0, f"{charter.digest}\n")
    holders: list[Server | Site] = [charter.server, *charter.sites.values()]
    for holder in holders:
        keys = read_enrolment(home / "drafts" / holder.id, holder.id)
        assert (holder.identity, holder.flower) == (keys.identity, keys.flower)
        assert (holder.dns, holder.uri) == (keys.holder.dns, keys.holder.uri)
    assert "enrolled; signs" in ran(capsys, "show", "enrolled.json")[1]


@pytest.mark.parametrize(("name", "said"), [("/dev/zero", "not a file"), ("va", "not a file"), ("x", "cannot be read")])
def test_a_draft_names_nothing_else(home: Path, capsys: pytest.CaptureFixture[str], name: str, said: str) -> None:
    draft = (home / "draft.toml").read_text(encoding="utf-8")
    draft = re.sub(r'id = "va"\n(?:.+\n)+', f'enrolment = "{name}"\n', draft)
    (home / "draft.toml").write_text(draft, encoding="utf-8")
    code, out, told = ran(capsys, "init", "draft.toml", "--out", "x.json")
    assert (code, out, said in told, (home / "x.json").exists()) == (2, "", True, False)


def test_the_digests_that_a_draft_needs(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "application") == (0, f"{application_digest()}\n", "")
    (home / "study.toml").write_text(STUDY, encoding="utf-8")
    code, out, _ = ran(capsys, "study", "study.toml")
    assert (code, out) == (0, read_study(STUDY, where="here").digest + "\n")
    (home / "study.toml").write_text("name = 3", encoding="utf-8")
    code, out, told = ran(capsys, "study", "study.toml")
    assert (code, out, "study.toml" in told) == (2, "", True)


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
        (("sign", "charter.json", "--key", "va/short.key"), "not a signing key"),
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
