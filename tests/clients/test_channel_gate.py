"""The gate between agents: what must hold before anything passes, in which order, and that it is on record."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clients.channel_gate import ChannelDecision, ChannelGate
from clients.gate import PolicyRefusalError
from privacy.charter.rules import CharterRefusalError
from privacy.errors import ConfigError, FederationError, PrivacyError, VerificationError
from privacy.policy import shipped
from privacy.policy.channel_requests import AskFacts, HoldFacts, ReleaseFacts
from privacy.policy.floor import FloorRefusalError
from tests.federation import ASSET, CHANNEL_POLICY, SITES, Federation, federate

ME = "alba"
PLAN = "ee" * 32
TERMS: Mapping[str, Any] = {
    "agents": list(SITES),
    "weights": dict.fromkeys(SITES, 1),
    "modes": ["chain", "ensemble", "local"],
    "purposes": ["diagnosis"],
    "most_queries": 1000,
    "noise": None,
}
HOLD = HoldFacts("brno", "brno", PLAN, "training", train=True, stages=2, micro_batch=32)
RELEASE = ReleaseFacts(
    "brno", ASSET, PLAN, "training", ("activations",),
    clip=Decimal(1), noise=Decimal(5), most=10, epsilon_after=Decimal(2),
)  # fmt: skip
UNSAFE = ReleaseFacts("brno", ASSET, PLAN, "training", ("labels",), reason="public digits")
ASK = AskFacts("brno", "ensemble", "diagnosis", 10, 20, 30, SITES, 1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    path = tmp_path_factory.mktemp("gate") / "north"
    return federate(path, policy=CHANNEL_POLICY, chains={"digits": PLAN}, inference=dict(TERMS))


@pytest.fixture
def parties(made: Federation, tmp_path: Path) -> Federation:
    return made.copied(tmp_path / "north")


def gate_of(parties: Federation, site: str = ME, now: datetime | None = None) -> ChannelGate:
    return ChannelGate.of_folder(parties.folders[site], lambda: now or datetime.now(UTC))


def logged(parties: Federation, site: str = ME) -> list[Mapping[str, Any]]:
    entries = (entry.record for entry in parties.folders[site].log().entries())
    return [record.content for record in entries if record.kind == "channel-decision"]


def test_what_is_agreed_passes_and_is_on_record(parties: Federation) -> None:
    gate = gate_of(parties)
    gate.hold(HOLD)
    gate.release(RELEASE)
    gate.release(UNSAFE)
    gate.ask(ASK)
    found = logged(parties)
    assert [(entry["allowed"], entry["action"]) for entry in found] == [
        (True, action) for action in ("hold", "release", "release", "ask")
    ]
    charter, policy = gate.charter().digest, gate.policy().digest
    assert {(one["charter"], one["policy"], one["by"], one["reason"]) for one in found} == {(charter, policy, "", "")}
    assert found[0]["facts"]["plan"] == PLAN
    assert (found[1]["facts"]["noise"], found[1]["facts"]["what"]) == ("5", ["activations"])
    assert (found[2]["facts"]["reason"], found[2]["facts"]["clip"]) == ("public digits", "Infinity")
    assert (found[3]["facts"]["asker"], found[3]["facts"]["asked_ever"]) == ("brno", 30)


REFUSED: dict[str, tuple[str, Any, type[FederationError], str]] = {
    "hold: charter": ("hold", replace(HOLD, plan="00" * 32), CharterRefusalError, "charter: chain"),
    "hold: stranger": ("hold", replace(HOLD, asker="evil"), CharterRefusalError, "charter: members"),
    "release: charter": ("release", replace(RELEASE, purpose="sales"), CharterRefusalError, "charter: purpose"),
    "release: floor": ("release", replace(RELEASE, noise=Decimal("0.05")), FloorRefusalError, "floor: noise"),
    "release: no reason": ("release", replace(UNSAFE, reason=""), FloorRefusalError, "floor: reason"),
    "ask: charter": ("ask", replace(ASK, queries=2000), CharterRefusalError, "charter: queries"),
    "ask: floor": ("ask", replace(ASK, colluders=0), FloorRefusalError, "floor: colluders"),
    "ask: not counted": ("ask", replace(ASK, asked_today=0), FloorRefusalError, "floor: counted"),
    "ask: another's local answer": ("ask", replace(ASK, mode="local"), FloorRefusalError, "floor: local"),
}


@pytest.mark.parametrize(("action", "facts", "kind", "by"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused_is_on_record_too(
    parties: Federation, action: str, facts: Any, kind: type[FederationError], by: str
) -> None:
    with pytest.raises(kind) as raised:
        getattr(gate_of(parties), action)(facts)
    (entry,) = logged(parties)
    assert (entry["allowed"], entry["action"], entry["by"]) == (False, action, by)
    assert entry["reason"] == str(raised.value)
    assert "\n" not in entry["reason"]


@pytest.mark.parametrize(("action", "facts"), [("hold", HOLD), ("release", RELEASE), ("ask", ASK)])
def test_a_paused_site_refuses_everything(parties: Federation, action: str, facts: Any) -> None:
    gate = gate_of(parties)
    parties.folders[ME].pause(paused=True)
    with pytest.raises(PrivacyError, match="this site is paused"):
        getattr(gate, action)(facts)
    assert [(entry["allowed"], entry["by"]) for entry in logged(parties)] == [(False, "paused")]
    parties.folders[ME].pause(paused=False)
    getattr(gate, action)(facts)


def test_the_policy_of_the_moment_counts(parties: Federation) -> None:
    gate = gate_of(parties)
    gate.ask(ASK)
    path = parties.folders[ME].path / "site.cedar"
    limit = '@id("twenty") forbid (principal, action == Action::"ask", resource) when { context.asked_today > 19 };\n'
    path.write_text(CHANNEL_POLICY + limit)
    with pytest.raises(PolicyRefusalError, match="twenty"):
        gate.ask(ASK)
    gate.ask(replace(ASK, asked_today=19))
    path.write_text("nonsense {")
    with pytest.raises(ConfigError):
        gate.ask(ASK)
    assert [entry["by"] for entry in logged(parties)] == ["", "policy: twenty", "", "the site itself"]
    assert logged(parties)[-1]["policy"] == ""


def test_a_policy_from_before_the_channel_allows_nothing(parties: Federation) -> None:
    (parties.folders[ME].path / "site.cedar").write_text('@id("all") permit (principal, action, resource);\n')
    gate = gate_of(parties)
    actions: tuple[tuple[str, Any], ...] = (("hold", HOLD), ("release", RELEASE), ("ask", ASK))
    for action, facts in actions:
        with pytest.raises(PolicyRefusalError, match="no rule allows it"):
            getattr(gate, action)(facts)
    assert [entry["allowed"] for entry in logged(parties)] == [False] * 3


def test_the_charter_of_the_moment_counts(parties: Federation) -> None:
    gate = gate_of(parties)
    gate.hold(HOLD)
    parties.amend(ME, chains={"digits": "dd" * 32})
    with pytest.raises(CharterRefusalError, match="approved chains"):
        gate.hold(HOLD)
    gate.hold(replace(HOLD, plan="dd" * 32))


def test_a_charter_that_somebody_edited_is_no_charter(parties: Federation) -> None:
    gate = gate_of(parties)
    path = parties.folders[ME].path / "charter-1.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(b'"sig":"', b'"sig":"A', 1))
    with pytest.raises(FederationError) as raised:
        gate.hold(HOLD)
    assert isinstance(raised.value, ConfigError | VerificationError)
    assert [(entry["by"], entry["charter"]) for entry in logged(parties)] == [("the site itself", "")]


def test_the_window_is_that_of_the_site_clock(parties: Federation) -> None:
    late = parties.charter.not_after + timedelta(days=1)
    for ask in (
        gate_of(parties, now=late).ask,
        gate_of(parties, now=parties.charter.not_before - timedelta(days=1)).ask,
    ):
        with pytest.raises(CharterRefusalError, match="nothing may run"):
            ask(ASK)


def test_the_hours_are_those_of_the_sites_own_zone(parties: Federation) -> None:
    parties.rewrite(ME, "site.toml", old="server =", new='timezone = "Pacific/Auckland"\nserver =')
    (parties.folders[ME].path / "site.cedar").write_text(
        CHANNEL_POLICY + '@id("noon") forbid (principal, action == Action::"ask", resource)'
        " when { context.minute >= 720 };\n"
    )
    start = parties.charter.not_before.replace(hour=0, minute=0) + timedelta(days=3)
    with pytest.raises(PolicyRefusalError, match="noon"):  # midnight in UTC is noon or 13:00 there
        gate_of(parties, now=start).ask(ASK)
    gate_of(parties, now=start + timedelta(hours=13)).ask(ASK)


def test_a_site_releases_only_what_it_has_for_what_it_allows(parties: Federation) -> None:
    purposes = {ASSET: {"purposes": ["quality", "training"], "epsilon": "4", "delta": "0.001"}}
    parties.amend(assets={**purposes, "lungs": {**purposes[ASSET]}})
    for facts in (replace(RELEASE, purpose="quality"), replace(RELEASE, asset="lungs")):
        with pytest.raises(PrivacyError, match="this site has no asset"):
            gate_of(parties).release(facts)


def test_the_cap_is_the_lower_one_of_charter_and_site(parties: Federation) -> None:
    path = parties.folders[ME].path / "site.cedar"
    path.write_text(
        CHANNEL_POLICY + '@id("over") forbid (principal, action == Action::"release", resource)'
        " when { context.epsilon_after_milli > resource.epsilon_cap_milli };\n"
    )
    gate = gate_of(parties)
    gate.release(replace(RELEASE, epsilon_after=Decimal(4)))
    parties.rewrite(ME, "site.toml", old="sensitivity", new="epsilon = 1.5\nsensitivity")
    with pytest.raises(PolicyRefusalError, match="over"):
        gate.release(replace(RELEASE, epsilon_after=Decimal("1.501")))
    gate.release(replace(RELEASE, epsilon_after=Decimal("1.5")))


def test_nothing_passes_that_cannot_be_put_on_record(parties: Federation) -> None:
    def full(_: ChannelDecision) -> None:
        raise ConfigError("the disk is full")

    gate = replace(gate_of(parties), record=full)
    with pytest.raises(ConfigError, match="the disk is full"):
        gate.hold(HOLD)
    with pytest.raises(ConfigError, match="the disk is full"):
        gate.ask(replace(ASK, mode="vote"))


def test_a_strangers_words_fit_the_log(parties: Federation) -> None:
    odd = "a\n\x1b[31m\ud800" + "b" * 2**20
    with pytest.raises(CharterRefusalError):
        gate_of(parties).hold(replace(HOLD, purpose=odd, plan=odd, micro_batch=2**80, stages=2**60))
    (entry,) = logged(parties)
    assert entry["facts"]["purpose"] == "a??[31m?" + "b" * 92
    assert entry["facts"]["micro_batch"] == str(2**80)


@pytest.mark.parametrize("name", ["hospital", "bank", "demo"])
def test_the_shipped_policies_answer_for_what_the_charter_lists(parties: Federation, name: str) -> None:
    (parties.folders[ME].path / "site.cedar").write_text(shipped.read(f"{name}.cedar"))
    night = parties.charter.not_before.replace(hour=23) + timedelta(days=7)
    gate = gate_of(parties, now=night)
    local = replace(ASK, asker=ME, mode="local", agents=(ME,), colluders=0)
    gate.ask(local)
    if name == "bank":
        with pytest.raises(PolicyRefusalError, match="few-agents"):
            gate.ask(ASK)
    else:
        gate.ask(ASK)
    with pytest.raises(PolicyRefusalError, match="unsafe-release"):
        gate.release(UNSAFE)
