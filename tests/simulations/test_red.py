"""The red kit: every broken run is rejected by somebody, and every correct one by nobody."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import clients.conformance
from clients.conformance import conform
from clients.training import private_gradient
from privacy.dp.mechanism import RoundedGaussianSum
from privacy.dp.noise import poisson_mask
from simulations.red import command, refusals
from simulations.red.command import MEMBERS
from simulations.red.member import Accepted, BentReport, Member, Refused, Rejected
from simulations.red.noise import MEMBERS as NOISE
from simulations.red.patching import swapped, wrapped
from simulations.red.trial import Trials


@pytest.fixture(autouse=True)
def _every_site_tests_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere in the suite a plan is tested once; here the code under it changes."""
    monkeypatch.setattr(clients.conformance, "conform", conform)


@pytest.fixture(scope="module")
def trials(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    return Trials(tmp_path_factory.mktemp("red"))


def name(member: Member) -> str:
    return member.name


def test_no_two_members_have_one_name() -> None:
    assert not [name for name, times in Counter(member.name for member in MEMBERS).items() if times > 1]


@pytest.mark.parametrize("member", refusals.MEMBERS, ids=name)
def test_what_must_be_refused_is(member: Refused, trials: Trials) -> None:
    found = trials.run(member)
    assert isinstance(found, Rejected)
    assert found.why


def test_code_is_replaced_wherever_it_is_used_and_put_back() -> None:
    users = [sys.modules[name] for name in ("clients.release_path", "clients.training", "clients.agent")]

    def other() -> None:
        pass

    with swapped(private_gradient, other):
        assert [vars(module)["private_gradient"] for module in users] == [other] * 3
    assert [vars(module)["private_gradient"] for module in users] == [private_gradient] * 3


def test_code_is_put_back_after_an_error() -> None:
    original = RoundedGaussianSum.__dict__["noise"]
    with pytest.raises(KeyError), wrapped(RoundedGaussianSum, "noise", lambda noise: noise):
        raise KeyError
    assert RoundedGaussianSum.__dict__["noise"] is original
    assert isinstance(poisson_mask(0.5, 4, bytes), np.ndarray)


@pytest.mark.parametrize("member", [m for m in NOISE if m.name in {"noise off", "key reused"}], ids=name)
def test_a_member_changes_the_production_code(member: Member) -> None:
    mechanism = RoundedGaussianSum(1.0, noise_multiplier=2.0)
    keys = iter([b"\1" * 32, b"\2" * 32] * 4)

    def drawn() -> bool:
        return bool((mechanism.noise(50, lambda _n: next(keys)) == mechanism.noise(50, lambda _n: next(keys))).all())

    assert not drawn()
    with member.apply():  # type: ignore[union-attr]
        assert drawn()
    assert not drawn()


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("member", [one for one in MEMBERS if not isinstance(one, Refused)], ids=name)
def test_every_member_is_rejected(member: Member, trials: Trials) -> None:
    found = trials.run(member)
    assert isinstance(found, Rejected), f"nobody found: {member.says}"
    assert found.why


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(20))
def test_correct_runs_are_accepted(seed: int, tmp_path: Path) -> None:
    trials = Trials(tmp_path)
    bent_by_nobody = BentReport("honest", "nothing is altered", lambda _papers: None, {"seed": seed})
    assert trials.run(bent_by_nobody) == Accepted()
    assert trials.audit(trials.honest({"seed": seed})) == Accepted()


def test_the_command_shows_who_found_what(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    harmless = Refused("harmless", "asks for nothing", lambda _place: None)
    monkeypatch.setattr(command, "MEMBERS", refusals.MEMBERS[1:2])
    assert command.show(as_json=False) == 0
    assert "spend cannot be moved" in capsys.readouterr().out
    monkeypatch.setattr(command, "MEMBERS", (refusals.MEMBERS[1], harmless))
    assert command.show(as_json=True) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["rejected_by"] for one in told["members"]] == ["site", None]
