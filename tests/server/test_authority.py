"""Who may do what at the coordinator: by the policy, the account and its roles; every answer in the log first."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from privacy.errors import ConfigError
from privacy.store.site_folder import SiteFolder
from server.authority import NotAllowedError, account, authorise
from tests.federation import HUB, Federation, federate

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)
ROLES = '[roles]\noperator = ["ines", "both"]\nreader = ["rolf", "both"]\n'
OPERATOR = {"start", "stop", "resume", "read-status"}
READER = {"read-model", "read-report", "read-status"}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    made = federate(tmp_path_factory.mktemp("founded") / "north", ("alba", "brno", "cork"))
    path = made.hub.path / "server.toml"
    path.write_text(path.read_text().partition("[roles]")[0] + ROLES)
    return made


@pytest.fixture
def hub(founded: Federation, tmp_path: Path) -> SiteFolder:
    return founded.copied(tmp_path / "north").hub


def accesses(hub: SiteFolder) -> list[Mapping[str, Any]]:
    return [entry.record.content for entry in hub.log().entries() if entry.record.kind == "access"]


@pytest.mark.parametrize("action", sorted(OPERATOR | READER))
@pytest.mark.parametrize(
    ("user", "may"), [("ines", OPERATOR), ("rolf", READER), ("both", OPERATOR | READER), ("eve", set()), ("", set())]
)
def test_an_account_may_do_what_its_roles_may(user: str, may: set[str], action: str, hub: SiteFolder) -> None:
    if action in may:
        authorise(hub, action, NOW, user=user)
    else:
        with pytest.raises(NotAllowedError, match=f"{user} may not {action} here"):
            authorise(hub, action, NOW, user=user)
    (entry,) = accesses(hub)
    assert (entry["user"], entry["action"], entry["allowed"]) == (user, action, action in may)
    assert entry["reasons"]
    assert len(entry["policy"]) == 64


def test_a_rule_may_look_at_strategy_and_local_time(hub: SiteFolder) -> None:
    path, settings = hub.path / "server.cedar", hub.path / "server.toml"
    settings.write_text('timezone = "Asia/Tokyo"\n' + settings.read_text())
    path.write_text(
        path.read_text()
        + '@id("no-scaffold") forbid (principal, action == Action::"start", resource)'
        + ' when { context.strategy == "scaffold" };\n'
        + '@id("not-at-nine") forbid (principal, action, resource) when { context.minute < 600 };\n'
    )
    at = {hour: datetime(2027, 3, 1, hour, tzinfo=UTC) for hour in (0, 3)}  # nine and twelve in Tokyo
    authorise(hub, "start", at[3], user="ines", strategy="fedavg")
    with pytest.raises(NotAllowedError, match="no-scaffold"):
        authorise(hub, "start", at[3], user="ines", strategy="scaffold")
    with pytest.raises(NotAllowedError, match="not-at-nine"):
        authorise(hub, "start", at[0], user="ines", strategy="fedavg")
    assert [(each["allowed"], each["strategy"]) for each in accesses(hub)] == [
        (True, "fedavg"),
        (False, "scaffold"),
        (False, "fedavg"),
    ]


@pytest.mark.parametrize("text", ["", "permit", "permit (principal, action, resource);", "nonsense {"])
def test_a_policy_that_cannot_be_used_allows_nothing(text: str, hub: SiteFolder) -> None:
    (hub.path / "server.cedar").write_text(text)
    with pytest.raises(ConfigError):
        authorise(hub, "start", NOW, user="ines")


def test_what_cannot_be_logged_is_not_allowed(hub: SiteFolder) -> None:
    (hub.path / "log.db").unlink()
    with pytest.raises(ConfigError):
        authorise(hub, "start", NOW, user="ines")


def test_a_site_has_no_such_rules(founded: Federation) -> None:
    assert HUB not in founded.sites
    with pytest.raises(ConfigError, match="folder of a site"):
        authorise(founded.folders["alba"], "start", NOW, user="ines")


def test_the_account_is_the_one_that_the_process_runs_as(monkeypatch: pytest.MonkeyPatch) -> None:
    assert account()
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    assert account() == "uid-4000000"
