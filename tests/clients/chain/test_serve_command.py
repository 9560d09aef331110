"""``collegium stage serve``: what it refuses to start with, in plain lines, and what it says when it listens."""

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from clients.chain import serve_command
from clients.chain.opening import PeerDial
from clients.chain.request import End, StageRequest
from clients.chain.service import Allowed
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from privacy import command
from privacy.errors import ConfigError, FederationError
from tests.clients.chain.holders import plan_of
from tests.federation import HUB, Federation, federate

REFUSED = 2
FACTORY = "tests.clients.chain.holders:mlp"


@pytest.fixture(autouse=True)
def mask() -> Iterator[None]:
    """The command sets the process's mask for new files."""
    before = os.umask(0o077)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("serve") / "north")


@pytest.fixture
def north(made: Federation, tmp_path: Path) -> Federation:
    return made.copied(tmp_path / "north")


def channel(north: Federation, text: str) -> str:
    """Writes the [channel] of brno, and returns its folder."""
    path = north.folders["brno"].path
    with (path / "site.toml").open("a") as file:
        file.write(f"[channel]\n{text}\n[channel.peers]\n")
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Runs the command; it must end with at most two lines."""
    assert command._outcome(["stage", "serve", *arguments]) == REFUSED
    said = capsys.readouterr().err.strip()
    assert 1 <= len(said.splitlines()) <= 2
    return said


def test_what_it_cannot_start_with(north: Federation, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    brno = str(north.folders["brno"].path)
    assert "nowhere" in refused(capsys, str(tmp_path / "nowhere"))
    assert "has no [channel]" in refused(capsys, brno)
    assert "server" in refused(capsys, str(north.folders[HUB].path))
    channel(north, "")
    assert "does not say where to listen" in refused(capsys, brno)
    assert "there is no module 'nosuch'" in refused(capsys, brno, "--model", "nosuch:model", "--listen", "127.0.0.1:0")
    assert "--blocks has no effect" in refused(capsys, brno, "--blocks", "a", "--listen", "127.0.0.1:0")
    with north.folders["brno"].locked(serve_command.LOCK):
        assert "another process is at work" in refused(capsys, brno, "--listen", "127.0.0.1:0")


def test_a_port_that_is_taken(north: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, channel(north, f'listen = "127.0.0.1:{port}"'))
    assert str(port) in said


def test_what_it_says_and_that_it_ends(
    north: Federation, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    north.amend(chains={"split": plan_of().digest, "asked": "0" * 64})
    monkeypatch.setattr(serve_command, "_serve", lambda *_: None)  # as after a signal
    folder = channel(north, 'listen = "127.0.0.1:0"')
    with north.folders["brno"].locked():  # beside the site's agent
        assert command._outcome(["stage", "serve", folder, "--device", "gpu", "--model", FACTORY, "--measure"]) == 0
    said = [line[20:] for line in capsys.readouterr().out.splitlines()]
    assert said[0] == "spiffe://north/site/brno as gpu under version 2 of the charter"
    assert said[1] == f"holds pieces of {FACTORY}; chains of the charter: asked, split"
    assert said[2] == "lets the other sites measure pieces and the line"
    assert said[3].startswith("listens on 127.0.0.1:")
    assert said[3][-1] != ":"
    assert said[4:] == ["stopped"]


def test_a_stage_that_nobody_has_an_address_of_is_refused_plainly(north: Federation) -> None:
    dial = PeerDial(Dialler(Identity.of_folder(north.folders["alba"], serve_command._now)), dict)
    plan = plan_of()
    request = StageRequest(plan=plan.encode(), place=0, end=End.BEFORE, chain=bytes(16))
    with pytest.raises(ConfigError, match="nobody knows where brno of brno listens"):
        dial(plan.held[0], request, "training")


def test_a_runs_papers_are_read_only_where_the_studys_model_is_held(north: Federation) -> None:
    plan = plan_of()
    asked = StageRequest(plan=plan.encode(), place=0, end=End.BEFORE, chain=bytes(16), seed=7)
    for model, told in ((FACTORY, "none of the study's model"), ("", "invitation")):
        authorise = serve_command._authorise(north.folders["brno"], model)
        assert authorise("alba", asked) == Allowed(plan, 7)
        with pytest.raises(FederationError, match=told):
            authorise("alba", replace(asked, grant=b"no paper"))
