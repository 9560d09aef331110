"""``policy test`` and ``policy show``."""

import hashlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from privacy.errors import ConfigError, FederationError
from privacy.policy import shipped
from privacy.policy.command import policy


def asked(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(policy, [str(argument) for argument in arguments])
    if isinstance(result.exception, FederationError):
        raise result.exception
    return result.exit_code, result.stdout


def kept(folder: Path, name: str, text: str | None = None) -> Path:
    path = folder / name
    path.write_text(shipped.read(name) if text is None else text, encoding="utf-8")
    return path


def test_a_shipped_policy_does_what_its_table_says(tmp_path: Path) -> None:
    code, told = asked("test", kept(tmp_path, "hospital.cedar"), kept(tmp_path, "policy-tests-hospital.toml"))
    lines = told.splitlines()
    assert code == 0
    assert len(lines) == 73
    assert lines[0] == "ok     allowed (training)  a run as agreed"
    assert "ok     refused (small-cohort)  a smaller cohort" in lines
    digest = hashlib.sha256((tmp_path / "hospital.cedar").read_bytes()).hexdigest()
    assert lines[-1] == f"72 of 72 as expected, policy {digest}"


def test_a_changed_policy_is_found_out(tmp_path: Path) -> None:
    weaker = shipped.read("hospital.cedar").replace("context.cohort < 4", "context.cohort < 3")
    table = kept(tmp_path, "policy-tests-hospital.toml")
    code, told = asked("test", kept(tmp_path, "mine.cedar", weaker), table)
    assert code == 1
    assert "WRONG  allowed (training)  a smaller cohort\n       expected: refused (small-cohort)" in told
    assert "71 of 72 as expected" in told


def test_another_reason_is_another_answer(tmp_path: Path) -> None:
    renamed = shipped.read("hospital.cedar").replace("small-cohort", "too-small")
    code, _ = asked("test", kept(tmp_path, "mine.cedar", renamed), kept(tmp_path, "policy-tests-hospital.toml"))
    assert code == 1


def test_another_answer_for_the_same_reason_is_another_answer(tmp_path: Path) -> None:
    text = shipped.read("policy-tests-hospital.toml").replace("allowed = false", "allowed = true", 1)
    code, told = asked("test", kept(tmp_path, "hospital.cedar"), kept(tmp_path, "mine.toml", text))
    assert code == 1
    assert "       expected: allowed (no rule allows it)\n" in told


def test_a_misspelt_word_of_the_table_is_no_expected_refusal(tmp_path: Path) -> None:
    text = shipped.read("policy-tests-hospital.toml").replace("{ cohort = 3 }", "{ cohrt = 3 }")
    code, told = asked("test", kept(tmp_path, "hospital.cedar"), kept(tmp_path, "mine.toml", text))
    assert code == 1
    assert "cohrt" in told


def test_a_rule_that_no_request_shows_is_named(tmp_path: Path) -> None:
    more = shipped.read("hospital.cedar") + (
        '@id("one-study") forbid (principal, action == Action::"train", resource) when { context.study == "3" };'
    )
    code, told = asked("test", kept(tmp_path, "mine.cedar", more), kept(tmp_path, "policy-tests-hospital.toml"))
    assert code == 0
    assert "No request here is decided by: one-study\n" in told


def test_it_says_the_same_in_json_also_for_a_server(tmp_path: Path) -> None:
    files = kept(tmp_path, "server.cedar"), kept(tmp_path, "policy-tests-server.toml")
    code, told = asked("test", *files, "--kind", "server", "--json")
    answer = json.loads(told)
    assert code == 0
    assert (answer["kind"], answer["as_expected"], answer["undecided_by"]) == ("server", True, [])
    assert answer["cases"][0] == {
        "name": "an operator: start",
        "expected": {"allowed": True, "by": ["operators-run"]},
        "allowed": True,
        "reasons": ["operators-run"],
        "as_expected": True,
    }
    assert all(case["as_expected"] for case in answer["cases"])
    with pytest.raises(ConfigError):
        asked("test", *files)


@pytest.mark.parametrize("name", shipped.NAMES)
def test_show_prints_a_shipped_file_as_it_is(name: str) -> None:
    assert asked("show", name) == (0, shipped.read(name))


def test_show_prints_nothing_else() -> None:
    with pytest.raises(ConfigError, match="is shipped"):
        asked("show", "engine.py")


BROKEN = {
    "no TOML": "[request",
    "no requests": "case = []",
    "unknown key": '[request]\nprincipal = ["a", "b"]\naction = "t"\nresource = ["a", "b"]\nsubject = 1\n',
    "no answer": (
        '[request]\nprincipal = ["a", "b"]\naction = "t"\nresource = ["a", "b"]\ncontext = {}\n[[case]]\nname = "x"\n'
    ),
    "fraction": '[request]\nprincipal = ["a", "b"]\naction = "t"\nresource = ["a", "b"]\ncontext = { a = 1.5 }\n',
    "nested": "a = " + "[" * 5000,
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_table_that_cannot_be_read_is_refused_in_plain_words(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the table of requests"):
        asked("test", kept(tmp_path, "hospital.cedar"), kept(tmp_path, "mine.toml", text))


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not text"):
        asked("test", tmp_path / "mine.cedar", kept(tmp_path, "policy-tests-hospital.toml"))


def test_a_case_can_be_like_another_request(tmp_path: Path) -> None:
    text = shipped.read("policy-tests-demo.toml")
    demo = kept(tmp_path, "demo.cedar")
    code, told = asked("test", demo, kept(tmp_path, "mine.toml", text.replace('like = "hold"\n', "")))
    assert code == 1
    assert "WRONG  allowed (demo-training)  a stage of an agreed chain" in told
    for wrong, said in (("[others.old]", r"there is no \[others.hold\]"), ('[others."hold"]\nx = 1', "others.hold")):
        with pytest.raises(ConfigError, match=said):
            asked("test", demo, kept(tmp_path, "mine.toml", text.replace("[others.hold]", wrong)))
