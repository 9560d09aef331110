"""Who holds which part and runs which training code: read from a document, every mistake named with its place."""

import tomllib
from typing import Any

import pytest

from privacy.errors import ConfigError
from strategies.parts import AgentSpec, Division, PartSpec, parse_agents, parse_division
from strategies.task import SiteId, Training
from strategies.task_file import StrictTable

SITES = tuple(SiteId(name) for name in ("va", "north", "harbour", "valley"))
GOOD = tomllib.loads("""
[submodels]
private = ["exits.*", "*.norm.*"]
[[submodels.parts]]
name = "quarter"
sites = ["va", "north"]
width = 0.25
[[submodels.parts]]
name = "front"
sites = ["valley"]
depth = 1
[agents.va]
kind = "scikit-learn"
local_steps = 2
[agents.valley]
batch = 0
learning_rate = 0.5
optimizer = "adam"
""")


def division(table: dict[str, Any]) -> Division:
    return parse_division(StrictTable(table, "net.toml: submodels"), SITES)


def agents(table: dict[str, Any]) -> Any:
    return parse_agents(StrictTable(table, "net.toml: agents"), SITES)


def test_everything_given_arrives() -> None:
    found = division(GOOD["submodels"])
    quarter = PartSpec("quarter", (SiteId("va"), SiteId("north")), width=0.25)
    assert found == Division((quarter, PartSpec("front", (SiteId("valley"),), depth=1)), ("exits.*", "*.norm.*"))
    assert found.part_of(SiteId("north")) == quarter
    assert found.part_of(SiteId("valley")).depth == 1
    assert found.part_of(SiteId("harbour")) == PartSpec("whole", (), 1.0, 0)
    assert agents(GOOD["agents"]) == {
        "va": AgentSpec("scikit-learn", {"local_steps": 2}),
        "valley": AgentSpec("torch", {"batch": 0, "learning_rate": 0.5, "optimizer": "adam"}),
    }


def test_nothing_given_is_the_whole_model_for_everybody() -> None:
    assert division({}) == Division()
    assert all(Division().part_of(site) == PartSpec("whole", ()) for site in SITES)
    assert agents({}) == {}
    assert AgentSpec() == AgentSpec("torch", {})


def test_a_sites_own_settings_take_the_place_of_the_common_ones() -> None:
    common = Training(rounds=9, local_steps=1, learning_rate=0.1, batch=8, clip=0.3)
    assert AgentSpec().training(common) == common
    own = agents(GOOD["agents"])["valley"].training(common)
    assert own == Training(9, 1, 0.5, 0, clip=0.3, optimizer="adam")


def part(**changes: Any) -> dict[str, Any]:
    return {"parts": [{"name": "quarter", "sites": ["va"], "width": 0.25, **changes}]}


SECOND = {"name": "half", "sites": ["north"]}
BAD_DIVISIONS: dict[str, dict[str, Any]] = {
    "parts[0].sites: there is no site 'vaa'": part(sites=["vaa"]),
    "parts[0].sites: must have at least one entry": part(sites=[]),
    "parts[0].sites: holds a value twice": part(sites=["va", "va"]),
    "parts[0].sites: must hold text": part(sites=["va", 3]),
    "parts[0].sites: must be a list": part(sites="va"),
    "parts[1].sites: 'va' is in another part too": {"parts": [*part()["parts"], SECOND | {"sites": ["north", "va"]}]},
    "parts[1].name: 'quarter' is taken": {"parts": [*part()["parts"], SECOND | {"name": "quarter"}]},
    "parts[0].name: 'whole' is taken": part(name="whole"),
    "parts[0].name: must not be empty": part(name=""),
    "parts[0].width: must be greater than 0": part(width=0),
    "parts[0].width: must be at most 1, not 1.5": part(width=1.5),
    "parts[0].width: must be a finite number": part(width="half"),
    "parts[0].depth: must be at least 0, not -1": part(depth=-1),
    "parts[0].depth: must be a whole number": part(depth=0.5),
    "parts[0].with: unknown key": part(**{"with": 0.5}),
    "parts: must be a list": {"parts": {}},
    "private: must hold text that is not empty": {"private": [""]},
    "private: must be a list": {"private": "exits.*"},
    "privat: unknown key": {"privat": []},
}
BAD_AGENTS: dict[str, dict[str, Any]] = {
    "vaa: there is no site 'vaa'": {"vaa": {}},
    "va.kind: 'jax' is not one of: torch, scikit-learn": {"va": {"kind": "jax"}},
    "va.local_steps: must be at least 1": {"va": {"local_steps": 0}},
    "va.batch: must be at least 0": {"va": {"batch": -1}},
    "va.learning_rate: must be greater than 0": {"va": {"learning_rate": 0}},
    "va.optimizer: 'lion' is not one of: sgd, adam": {"va": {"optimizer": "lion"}},
    "va.rounds: unknown key": {"va": {"rounds": 3}},
    "va.clip: unknown key": {"va": {"clip": 3}},
    "va: must be a table": {"va": "torch"},
}


def refused(read: Any, table: dict[str, Any], expected: str) -> str:
    """Returns the hint."""
    with pytest.raises(ConfigError) as caught:
        read(table)
    message, hint = caught.value.lines()
    assert message.startswith(expected)
    assert "\n" not in message + hint
    return hint


@pytest.mark.parametrize("expected", BAD_DIVISIONS)
def test_mistakes_in_parts_are_named_with_their_place(expected: str) -> None:
    refused(division, BAD_DIVISIONS[expected], f"net.toml: submodels.{expected}")


@pytest.mark.parametrize("expected", BAD_AGENTS)
def test_mistakes_in_agents_are_named_with_their_place(expected: str) -> None:
    refused(agents, BAD_AGENTS[expected], f"net.toml: agents.{expected}")


def test_a_misspelt_setting_is_guessed_although_none_was_given() -> None:
    assert refused(agents, {"va": {"learning_rat": 0.1}}, "net.toml: agents.va.learning_rat") == (
        "Did you mean 'learning_rate'?"
    )
