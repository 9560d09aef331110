"""A holder's service: what it lets in, what it refuses and on which record, and what it keeps of a run."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.chain import service as service_module
from clients.chain.held import Copy, Held, State
from clients.chain.installed import Installed
from clients.chain.opening import open_chain
from clients.chain.released import Releaser
from clients.chain.request import End, StageRequest
from clients.channel.memory import pair
from clients.channel.session import FAILED, Opening, RemoteRefusalError
from privacy.errors import ConfigError, PrivacyError, RemoteProtocolError, TransportError
from privacy.store.log import Record
from strategies.chain_plan import ChainPlan
from strategies.secure_sum import FRACTION_BITS
from tests.clients.chain.holders import CNN, MLP, OPEN, RATE, Holders, batch, kept, own_of, plan_of, whole

U = ("alba", "brno", "cork", "alba")
GRID = 2.0**-FRACTION_BITS
"""Means over sites are taken on the grid of masked sums."""


@pytest.fixture
def holders(tmp_path: Path) -> Holders:
    return Holders(tmp_path)


def payer(plan: ChainPlan, times: int = 1000) -> Releaser:
    """Lets values leave; the plans' releases here are unsafe ones, which cost nothing."""
    releaser = Releaser(plan, payer=None, entropy=bytes, record=lambda _: None)
    releaser.pay(times)
    return releaser


def request(plan: ChainPlan, **changes: object) -> StageRequest:
    fields = {"plan": plan.encode(), "place": 0, "end": End.BEFORE, "chain": bytes(16), "learning_rate": RATE}
    return StageRequest(**{**fields, **changes})  # type: ignore[arg-type]


def opened(holders: Holders, plan: ChainPlan) -> None:
    """Opens a chain of which nobody is to take part."""
    releaser = payer(plan_of())  # one that looks at no crossing of this plan
    with open_chain(plan, holders.dial_of("alba"), own_of(plan), releaser, purpose="training"):
        pytest.fail("the chain opened")


def interrupted(holders: Holders, plan: ChainPlan, fault: Callable[[], None]) -> None:
    """Trains a step, lets something happen, and trains another."""
    dial, own = holders.dial_of("alba"), own_of(plan)
    fields: dict[str, Any] = {"learning_rate": RATE, "run": "spring", "round": 1}
    with open_chain(plan, dial, own, payer(plan), purpose="training", **fields) as driver:
        driver.step(*batch(1))
        fault()
        driver.step(*batch(2))


@pytest.mark.parametrize("installed", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize(
    "places", [("alba", "brno", "alba"), ("alba", "brno", "cork"), ("alba", "brno", "cork", "alba")]
)
def test_a_chain_over_services_trains_as_the_whole_model_does(
    tmp_path: Path, installed: Installed, places: tuple[str, ...]
) -> None:
    holders = Holders(tmp_path, installed)
    plan = plan_of(installed, places)
    own = own_of(plan, installed)
    with open_chain(
        plan, holders.dial_of("alba"), own, payer(plan), purpose="training", learning_rate=RATE, run="r", round=1
    ) as driver:
        for number in range(5):
            driver.step(*batch(number, installed))
    holders.ended()
    found = {key: value for stage in own.stages for key, value in stage.state().items()}
    for name in plan.held:
        found |= kept(tmp_path / name.device, "r", name.device)
    expected = whole(installed, 5)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
    assert not any(holders.records.values())
    facts = holders.asked["brno"][0]
    assert (facts.asker, facts.owner, facts.plan, facts.purpose, facts.train) == (
        "alba", "alba", plan.digest, "training", True,
    )  # fmt: skip


def test_a_refusal_down_the_chain_comes_before_anything_is_sent(holders: Holders) -> None:
    holders.refusals["cork"] = PrivacyError("not on a Monday")
    plan = plan_of()
    with pytest.raises(RemoteRefusalError, match="brno refused: cork refused: not on a Monday"):
        opened(holders, plan)
    assert holders.sessions == []
    assert holders.records["brno"] == [
        Record("stage-refused", {"peer": "alba", "reason": "cork refused: not on a Monday"})
    ]


def test_a_crossing_without_release_is_refused_at_home_and_at_the_holder(holders: Holders) -> None:
    plan = plan_of(releases=OPEN[:1])
    with pytest.raises(PrivacyError, match="activations of alba would reach cork, and the plan has no release"):
        opened(holders, plan)
    assert holders.records["brno"] == []  # nobody was dialled
    with pytest.raises(RemoteRefusalError, match="would reach cork"):
        holders.dial_of("alba")(plan.held[0], request(plan), "training")
    assert holders.asked["brno"] == []
    assert [each.kind for each in holders.records["brno"]] == ["stage-refused"]


def test_who_may_open_what(holders: Holders) -> None:
    plan = plan_of()
    refused = {
        "the owner in the middle": ("alba", request(plan, place=1)),
        "a stranger at the start": ("cork", request(plan)),
        "another site's stage": ("alba", request(plan, place=5)),
        "the end, where the middle is": ("alba", request(plan, place=0, end=End.HOME)),
        "the end of no chain": ("alba", request(plan, place=1, end=End.HOME)),
        "no plan": ("alba", replace(request(plan), plan=b"{}")),
        "a plan that was edited": ("alba", replace(request(plan), plan=plan.encode() + b" ")),
    }
    for what, (peer, asked) in refused.items():
        stage = plan.held[min(asked.place, 1)]
        with pytest.raises(RemoteRefusalError):
            holders.dial_of(peer)(stage, asked, "training")
        assert holders.sessions == [], what
    assert sum(map(len, holders.records.values())) == len(refused)


def test_the_end_of_a_chain_is_its_owners_and_only_as_it_was_opened(holders: Holders) -> None:
    plan = plan_of()
    near = holders.dial_of("alba")(plan.held[0], request(plan), "training")
    for change in ({"chain": bytes(15) + b"1"}, {"learning_rate": 0.5}, {"run": "other"}, {"seed": 4}):
        with pytest.raises(RemoteRefusalError, match="not at work here"):
            holders.dial_of("alba")(plan.held[1], request(plan, place=1, end=End.HOME, **change), "training")
    with pytest.raises(RemoteRefusalError, match="at work here already"):
        holders.dial_of("alba")(plan.held[0], request(plan), "training")
    with pytest.raises(RemoteRefusalError, match="alba is not whom stage 1 of the plan works with"):
        holders.dial_of("alba")(plan.held[0], request(plan, end=End.HOME), "training")
    far = holders.dial_of("alba")(plan.held[1], request(plan, place=1, end=End.HOME), "training")
    near.close()
    far.close()
    holders.ended()


def test_other_model_code_is_refused(tmp_path: Path) -> None:
    holders = Holders(tmp_path, CNN)
    plan = plan_of(MLP)
    with pytest.raises(RemoteRefusalError, match=r"has no operation|is another one"):
        holders.dial_of("alba")(plan.held[0], request(plan), "training")
    wrong = replace(plan.stages[1], digest="0" * 64)
    plan = replace(plan, stages=(plan.stages[0], wrong, *plan.stages[2:]))
    with pytest.raises(RemoteRefusalError, match="is another one"):
        Holders(tmp_path).dial_of("alba")(plan.held[0], request(plan), "training")


def test_a_stage_of_another_site_is_refused(holders: Holders) -> None:
    plan = plan_of()
    elsewhere = replace(plan.stages[1], organisation="dole")
    plan = replace(plan, stages=(plan.stages[0], elsewhere, *plan.stages[2:]))
    with pytest.raises(RemoteRefusalError, match="stage 1 of the plan is not for brno"):
        holders.dial_of("alba")(plan.held[0], request(plan), "training")


def test_another_device_of_the_site_is_refused(holders: Holders) -> None:
    holders.services["brno"] = replace(holders.services["brno"], device="brno-2")
    plan = plan_of()
    with pytest.raises(RemoteRefusalError, match="the plan is for brno, and this is brno-2"):
        holders.dial_of("alba")(plan.held[0], request(plan), "training")


def test_rounds_of_a_run_go_on_from_the_mean_of_their_copies(tmp_path: Path) -> None:
    holders = Holders(tmp_path)
    plan = plan_of(places=("alba", "brno", "alba"))
    starts = []

    def trained(number: int, attempt: int, seed: int) -> State:
        own = own_of(plan)
        fields: dict[str, Any] = {"learning_rate": RATE, "run": "spring", "round": number, "attempt": attempt}
        with open_chain(plan, holders.dial_of("alba"), own, payer(plan), purpose="training", **fields) as driver:
            (work,) = holders.services["brno"]._chains.values()
            starts.append(work.stage.state())
            driver.step(*batch(seed))
        holders.ended()
        return kept(tmp_path / "brno", "spring", "brno", number, attempt)

    trained(1, 1, 1)
    first = trained(1, 2, 2)
    trained(2, 1, 3)
    holders.services["brno"] = Holders(tmp_path).services["brno"]  # killed, and started again
    again = trained(2, 2, 4)
    for key in starts[0]:
        np.testing.assert_array_equal(starts[1][key], starts[0][key])  # another attempt starts where the first did
        assert np.abs(np.asarray(starts[2][key], float) - np.asarray(first[key], float)).max() <= GRID
        np.testing.assert_array_equal(starts[3][key], starts[2][key])
        assert not np.allclose(again[key], first[key])


def test_a_chain_that_breaks_off_keeps_nothing_and_is_on_record(tmp_path: Path) -> None:
    holders = Holders(tmp_path)
    plan = plan_of()
    with pytest.raises(TransportError, match="cork refused: this site is paused"):
        interrupted(holders, plan, lambda: holders.services["cork"].stop("this site is paused"))
    holders.ended()
    assert not (tmp_path / "brno").exists()
    assert not (tmp_path / "cork").exists()
    assert [each.kind for each in holders.records["cork"]] == ["stages-stopped", "chain-ended"]
    assert holders.services["cork"]._chains == holders.services["brno"]._chains == {}


def test_what_was_let_in_and_never_came_is_forgotten(holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_BEGIN", 0.05)
    plan = plan_of(places=("alba", "brno", "alba"))
    service, opening = holders.services["brno"], Opening("stage", bytes(16), request(plan).encode())
    service.admit("alba", opening)
    assert service._chains
    end = time.monotonic() + 10
    while service._chains and time.monotonic() < end:
        time.sleep(0.01)
    assert not service._chains
    assert not service._ready


def test_a_held_piece_of_another_plan_is_refused(tmp_path: Path) -> None:
    other = {"other": np.zeros(3, np.float32)}
    Held.of_folder(tmp_path / "brno" / "of-alba" / "spring" / "brno", other).finish(1, Copy(1, 1, "alba", other))
    plan = plan_of(places=("alba", "brno", "alba"))
    holders = Holders(tmp_path)
    with pytest.raises(RemoteRefusalError, match=FAILED):
        holders.dial_of("alba")(plan.held[0], request(plan, run="spring", round=2), "training")
    (refused,) = holders.records["brno"]
    assert "of another piece" in refused.content["reason"]


def test_a_disk_that_fails_is_no_business_of_the_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise ConfigError("/secret/path cannot be written: the disk is full")

    holders, plan = Holders(tmp_path), plan_of()
    monkeypatch.setattr(Held, "finish", full)
    with pytest.raises(TransportError, match=FAILED) as caught:
        interrupted(holders, plan, lambda: None)
    assert "/" not in str(caught.value)
    holders.ended()
    assert "/secret/path" in holders.records["brno"][0].content["reason"]
    assert "/" not in holders.records["cork"][0].content["reason"]


def test_one_owner_has_so_many_pieces_kept_and_no_more(holders: Holders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_MOST_NAMES", 2)
    plan, dial = plan_of(places=("alba", "brno", "alba")), holders.dial_of("alba")
    for run in ("one", "two", "one"):
        with open_chain(plan, dial, own_of(plan), payer(plan), purpose="training", run=run, round=1):
            pass
    with pytest.raises(RemoteRefusalError, match="gets no more"):
        dial(plan.held[0], request(plan, run="three", round=1), "training")


def test_a_chain_has_one_end_at_home_and_nobody_comes_unannounced(holders: Holders) -> None:
    plan, dial = plan_of(), holders.dial_of("alba")
    near = dial(plan.held[0], request(plan), "training")
    home = request(plan, place=1, end=End.HOME)
    _, stranger = pair("alba", "cork", Opening("stage", bytes(16), home.encode()))
    with pytest.raises(RemoteProtocolError, match="too late"):
        holders.services["cork"].run(stranger)
    far = dial(plan.held[1], home, "training")
    with pytest.raises(RemoteRefusalError, match="its end at home already"):
        dial(plan.held[1], home, "training")
    near.close()
    far.close()
    holders.ended()


@pytest.mark.parametrize("name", ["..", ".hidden", "../up", "/etc"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    holders = Holders(tmp_path)
    plan = plan_of(places=("alba", "brno", "alba"))
    asked = [replace(request(plan, run="spring", round=1), plan=_renamed(plan, name).encode())]
    if "/" not in name:
        asked.append(request(plan, run=name, round=1))
    for each in asked:
        with pytest.raises(RemoteRefusalError, match="nothing can be kept here"):
            holders.dial_of("alba")(plan.held[0], each, "training")
    assert [*tmp_path.iterdir()] == []


def _renamed(plan: ChainPlan, device: str) -> ChainPlan:
    return replace(
        plan, stages=tuple(replace(each, device=device) if each.device == "brno" else each for each in plan.stages)
    )
