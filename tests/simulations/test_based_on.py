"""A scenario that says only in what it differs from another one."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from privacy.errors import ConfigError
from simulations.based_on import merged
from simulations.scenario import load, names
from strategies.parts import AgentSpec

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "own-data" / "clinics.toml"

BASE: dict[str, Any] = {
    "name": "base",
    "title": "Base",
    "notes": "n",
    "features": [{"name": "age"}, {"name": "sex"}],
    "model": {"kind": "logistic", "init": "zero"},
    "training": {"rounds": 5, "batch": 10, "reference": {"epochs": 3, "batch": 4}},
    "sites": [{"id": "a", "file": "a.csv", "only": [{"column": "c"}]}, {"id": "b", "file": "b.csv"}],
}


def change(**changes: object) -> dict[str, object]:
    return merged(BASE, changes, where="own.toml: ")


def test_tables_are_merged_however_deep() -> None:
    assert change(training={"rounds": 7, "reference": {"epochs": 9}})["training"] == {
        "rounds": 7,
        "batch": 10,
        "reference": {"epochs": 9, "batch": 4},
    }
    assert change(split={"test": 0.2})["split"] == {"test": 0.2}
    assert change(training=3)["training"] == 3  # refused when it is parsed


def test_other_lists_and_values_replace() -> None:
    assert change(features=[{"name": "height"}])["features"] == [{"name": "height"}]
    assert change(notes="other")["notes"] == "other"


def test_a_table_of_another_kind_replaces_the_whole() -> None:
    assert change(model={"kind": "mlp", "hidden": 4})["model"] == {"kind": "mlp", "hidden": 4}
    assert change(model={"kind": "logistic", "bias": 1})["model"] == {"kind": "logistic", "init": "zero", "bias": 1}
    assert change(model={"init": "torch"})["model"] == {"kind": "logistic", "init": "torch"}


def test_sites_are_changed_by_id_in_the_order_of_the_base() -> None:
    assert change(sites=[{"id": "b", "rows": 3}, {"id": "a", "only": []}])["sites"] == [
        {"id": "a", "file": "a.csv", "only": []},
        {"id": "b", "file": "b.csv", "rows": 3},
    ]


def test_name_and_title_are_its_own() -> None:
    assert {"name", "title"}.isdisjoint(change())
    assert change(name="own")["name"] == "own"


def test_nothing_that_was_given_is_changed() -> None:
    base: Mapping[str, object] = tomllib.loads(EXAMPLE.read_text("utf-8"))
    before = repr(base)
    merged(base, {"training": {"rounds": 1}, "sites": [{"id": "north", "title": "N"}]}, where="")
    assert repr(base) == before


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([{"id": "c"}], "own.toml: sites[0].id: 'c' is no site of the scenario this is based on"),
        ([{"id": "a"}, {"id": "a"}], "own.toml: sites[1].id: 'a' is there twice"),
        ([{"file": "a.csv"}], "own.toml: sites[0].id: '' is no site of the scenario this is based on"),
        ([{"id": ["a"]}], "own.toml: sites[0].id: '' is no site of the scenario this is based on"),
        (["a"], "own.toml: sites[0].id: '' is no site of the scenario this is based on"),
    ],
)
def test_sites_that_the_base_does_not_have(sites: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        change(sites=sites)
    assert caught.value.lines() == [expected, "Sites: a, b."]


def write(folder: Path, text: str, name: str = "own.toml") -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def test_a_file_based_on_a_built_in_scenario(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        based_on = "hospitals"
        name = "mine"
        title = "Mine"
        training.rounds = 3
        agents.va = { kind = "scikit-learn", local_steps = 2 }
        """,
    )
    mine, base = load(path), load("hospitals")
    assert (mine.name, mine.origin, mine.folder) == ("mine", "uci-heart-disease", None)
    assert (mine.task.training.rounds, mine.task.training.learning_rate) == (3, base.task.training.learning_rate)
    assert (mine.sites, mine.notes, mine.licence) == (base.sites, base.notes, base.licence)
    assert mine.agents == {"va": AgentSpec("scikit-learn", {"local_steps": 2})}


def test_a_file_based_on_the_one_beside_it(tmp_path: Path) -> None:
    write(tmp_path, EXAMPLE.read_text("utf-8"), "clinics.toml")
    path = write(tmp_path, 'based_on = "clinics.toml"\nname = "few"\ntitle = "Few"\ndata.rows_per_site = 9\n')
    few = load(path)
    assert (few.folder, few.rows_per_site, few.origin) == (tmp_path, 9, "files")
    assert [site.file for site in few.sites] == [site.file for site in load(str(EXAMPLE)).sites]


@pytest.mark.parametrize(
    ("based_on", "expected"),
    [
        ('"hospital"', "based_on: there is no scenario 'hospital'"),
        ('"none.toml"', "none.toml: no such file"),
        ('"../own.toml"', "based_on: must be a scenario's name or a .toml beside this file"),
        ("3", "based_on: must be a scenario's name or a .toml beside this file"),
        ('""', "based_on: there is no scenario ''"),
        ('"digits-depth"', "based_on: digits-depth is itself based on digits"),
        ('"own.toml"', "based_on: own.toml is itself based on own.toml"),
    ],
)
def test_what_nothing_can_be_based_on(tmp_path: Path, based_on: str, expected: str) -> None:
    path = write(tmp_path, f'based_on = {based_on}\nname = "own"\ntitle = "Own"\n')
    with pytest.raises(ConfigError) as caught:
        load(path)
    message, hint = caught.value.lines()
    assert message.endswith(expected)
    assert str(tmp_path) in message
    assert hint


def test_a_scenario_needs_a_name_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"own\.toml: name: is missing$"):
        load(write(tmp_path, 'based_on = "hospitals"\n'))
    assert "hospitals-parts" in names()
