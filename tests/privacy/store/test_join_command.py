"""The commands that a person at a site types: everything from files, every refusal in two plain lines."""

import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from privacy import command
from privacy.enrolment.certificates import fingerprint
from privacy.store import join_command, site_keys
from tests.privacy.store.joined import POLICY, SITE_TOML, STUDY, Federation

Typed = Callable[..., tuple[int, str]]


@pytest.fixture
def north(tmp_path: Path) -> Federation:
    return Federation(tmp_path)


@pytest.fixture
def typed(north: Federation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Typed:
    mounted = typer.Typer(name="site")
    for name in ("join", "install-certificate", "charter", "declare"):
        mounted.command(name)(getattr(join_command, name.replace("-", "_")))
    monkeypatch.setattr(command, "_load", lambda _: mounted)
    given = north.path / "given"
    given.mkdir()
    texts = {"study.toml": STUDY, "site.cedar": POLICY, "site.toml": SITE_TOML}
    papers = north.papers()
    for name, text in texts.items():
        (given / name).write_text(text)
    (given / "alba.pem").write_bytes(papers.certificate)
    (given / "root.pem").write_bytes(papers.root)
    (given / "charter.json").write_bytes(papers.charters[0])

    def run(*words: object) -> tuple[int, str]:
        code = command._outcome(["site", *map(str, words)])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    return run


def join(north: Federation, typed: Typed, **changes: object) -> tuple[int, str]:
    given = north.path / "given"
    options: dict[str, object] = {
        "certificate": given / "alba.pem",
        "root": given / "root.pem",
        "fingerprint": fingerprint(north.authority.root),
        "charter": given / "charter.json",
        "digest": north.charter().charter.digest,
        "study": given / "study.toml",
        "policy": given / "site.cedar",
        "settings": given / "site.toml",
        **changes,
    }
    return typed(
        "join", north.path / "alba", *(word for name, value in options.items() for word in (f"--{name}", value))
    )


def test_joining_says_what_is_fixed_for_ever(north: Federation, typed: Typed) -> None:
    code, said = join(north, typed)
    assert code == 0, said
    assert "spiffe://north/site/alba has joined north under version 1" in said
    assert f"log of north/site/alba: {north.folders['alba'].log().key.to_vkey()}" in said
    assert "budget of hearts, fixed for ever: epsilon 2 at delta 0.001 per record (GDP filter)" in said
    assert north.folders["alba"].policy == POLICY


def test_refusals_are_plain(north: Federation, typed: Typed) -> None:
    given = north.path / "given"
    (given / "bad.cedar").write_text(POLICY.replace(";", "\nwhen { context.secag };"))
    (given / "other.toml").write_text(STUDY.replace("rounds = 3", "rounds = 4"))
    (given / "broken.toml").write_text(STUDY.replace("rounds", "ronds"))
    for code, reason, changes in (
        (2, "--digest is not a SHA-256 digest", {"digest": "abc"}),
        (2, "--fingerprint is not a SHA-256 digest", {"fingerprint": "A" * 64}),
        (1, "has the fingerprint", {"fingerprint": "0" * 64}),
        (1, "has the digest", {"digest": "0" * 64}),
        (2, "secag", {"policy": given / "bad.cedar"}),
        (1, "not one that the charter lists", {"study": given / "other.toml"}),
        (2, "training.rounds: is missing", {"study": given / "broken.toml"}),
        (2, "absent", {"settings": given / "absent"}),
    ):
        ended, said = join(north, typed, **changes)
        assert (ended, reason in said) == (code, True), said
        assert not north.folders["alba"].joined


def test_renewing_and_the_next_charter(north: Federation, typed: Typed) -> None:
    folder = north.join()
    site_keys.renew(folder.path, "alba", "north", secrets.token_bytes)
    (north.path / "new.pem").write_bytes(north.leaf(key="tls-2.key", serial=78))
    code, said = typed("install-certificate", folder.path, north.path / "new.pem")
    assert (code, "in use from now on" in said, "tls-2.crt" in said) == (0, True, True)
    second = north.charter(version=2, previous=folder.charter.digest, studies={"other": "ab" * 32})
    (north.path / "second.json").write_bytes(second.encode())
    code, said = typed("charter", folder.path, north.path / "second.json")
    assert (code, "version 2 is in force here" in said, "not a study that it lists" in said) == (0, True, True)
    assert typed("charter", folder.path, north.path / "second.json")[0] == 1
    assert typed("declare", folder.path) == (0, "nothing is new\n")
