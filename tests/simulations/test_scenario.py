"""Scenario files: the built-in ones, the example of the how-to, and mistakes in anybody's."""

import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from privacy.errors import ConfigError
from simulations.datasets import at_hand, load_sites
from simulations.scenario import RowRule, Scenario, load, names, parse_scenario
from simulations.split import Split
from strategies import registry

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "own-data"


def test_built_in_names() -> None:
    assert names() == ("banks", "hospitals", "hospitals-flamby")


@pytest.mark.parametrize("name", ["banks", "hospitals", "hospitals-flamby"])
def test_built_in_scenarios_hold_together(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.licence == "CC BY 4.0"
    assert scenario.source.startswith("https://doi.org/")
    assert all(site.sha256 and site.rows for site in scenario.sites)
    assert set(scenario.task.strategy_settings) <= set(registry.ALGORITHMS)
    for strategy in registry.ALGORITHMS:
        registry.build(strategy, scenario.task.settings_for(strategy))


def test_hospitals_are_flambys_inputs_on_public_constants() -> None:
    hospitals, flamby = load("hospitals"), load("hospitals-flamby")
    assert (hospitals.scaling, flamby.scaling) == ("public", "own")
    assert hospitals.task.n_inputs == flamby.task.n_inputs == 13
    assert [feature.name for feature in hospitals.task.features] == [feature.name for feature in flamby.task.features]
    assert hospitals.sites == flamby.sites
    assert hospitals.record_privacy_refused == ""
    assert "moves all others" in flamby.record_privacy_refused


def test_flambys_published_settings() -> None:
    task = load("hospitals-flamby").task
    training = task.training
    assert (training.rounds, training.local_steps, training.batch) == (15, 100, 4)
    assert training.reference is not None
    assert (training.reference.epochs, training.reference.optimizer) == (50, "adam")
    rates = {name: task.training_for(name).learning_rate for name in registry.ALGORITHMS}
    assert rates == {
        "fedavg": 0.001,
        "fedprox": 0.001,
        "scaffold": 0.001,
        "fedadam": 0.01,
        "fedyogi": 0.003162,
        "fedadagrad": 0.003162,
    }
    assert task.settings_for("fedadagrad")["server_learning_rate"] == 0.316228


def test_banks_cover_every_customer_once() -> None:
    banks = load("banks")
    assert sum(site.rows or 0 for site in banks.sites) == 30_000
    limits = [site.only[0] for site in banks.sites]
    assert limits[::2] == limits[1::2]  # a bank of graduates and one of the others in each band
    assert [rule.over for rule in limits[2::2]] == [rule.up_to for rule in limits[:-2:2]]
    assert {site.only[1] for site in banks.sites} == {
        RowRule("EDUCATION", equal_to=1.0),
        RowRule("EDUCATION", other_than=1.0),
    }


def test_unknown_scenario_lists_what_there_is() -> None:
    with pytest.raises(ConfigError) as caught:
        load("hospital")
    assert caught.value.lines() == [
        "unknown scenario 'hospital': is 'hospitals' meant?",
        "There are: banks, hospitals, hospitals-flamby; or give the path of a .toml file of your own.",
    ]
    with pytest.raises(ConfigError, match=r"^unknown scenario 'x'$"):
        load("x")


def test_example_of_the_how_to_runs() -> None:
    scenario = load(str(EXAMPLE / "clinics.toml"))
    assert [site.id for site in scenario.sites] == ["north", "harbour", "valley"]
    assert "own files" in at_hand(scenario, None)
    sites = load_sites(scenario, None)
    assert [(len(site.train), len(site.test)) for site in sites] == [(39, 21)] * 3
    assert sites[0].train.x.shape == (39, 3)


def test_how_to_shows_the_example_that_runs() -> None:
    example = (EXAMPLE / "clinics.toml").read_text("utf-8")
    assert f"```toml\n{example}```" in (DOCS / "how-to-own-data.md").read_text("utf-8")
    assert len(example.splitlines()) == 20


def test_example_tables_are_what_the_script_writes(tmp_path: Path) -> None:
    script = tmp_path / "make_rows.py"
    script.write_bytes((EXAMPLE / "make_rows.py").read_bytes())
    runpy.run_path(str(script), run_name="__main__")
    for name in ("north.csv", "harbour.csv", "valley.csv"):
        assert (tmp_path / name).read_bytes() == (EXAMPLE / name).read_bytes()


def own(**changes: Any) -> dict[str, Any]:
    data = tomllib.loads((EXAMPLE / "clinics.toml").read_text("utf-8"))
    return {**data, **changes}


def sites(**changes: Any) -> list[dict[str, Any]]:
    first = {"id": "a", "file": "a.csv", **changes}
    return [first, {"id": "b", "file": "b.csv"}, {"id": "c", "file": "c.csv"}]


def parsed(data: dict[str, Any]) -> Scenario:
    return parse_scenario(data, where="own.toml: ", folder=Path())


def test_optional_keys_arrive() -> None:
    rules = [{"column": "age", "over": 17, "up_to": 65}]
    scenario = parsed(
        own(
            owner="us",
            notes="n",
            sites=sites(title="A", sha256="AB" * 32, rows=9, only=rules),
            split={"test": 0.3, "seed": 7},
            data={"incomplete": "drop", "rows_per_site": 50},
        )
    )
    assert scenario.sites[0].sha256 == "ab" * 32
    assert (scenario.sites[0].title, scenario.sites[0].rows) == ("A", 9)
    assert scenario.sites[0].only == (RowRule("age", 17.0, 65.0),)
    assert scenario.sites[1].title == "b"
    assert scenario.split == Split(0.3, 7)
    assert (scenario.incomplete, scenario.rows_per_site, scenario.owner) == ("drop", 50, "us")


def test_own_scaling_refuses_record_privacy_by_itself() -> None:
    features = [{"name": "age", "kind": "continuous"}]
    assert "one record moves" in parsed(own(scaling="own", features=features)).record_privacy_refused
    assert parsed(own()).record_privacy_refused == ""


BAD: dict[str, dict[str, Any]] = {
    "name: 'a b' may only have": {"name": "a b"},
    "title: must not be empty": {"title": ""},
    "sites: must have at least three": {"sites": sites()[:2]},
    "sites[2].id: 'c' is there twice": {"sites": sites(id="c")},
    "sites[0].id: '../a' may only have": {"sites": sites(id="../a")},
    "sites[0].file: must be text": {"sites": sites(file=1)},
    "sites[0].sha256: must be 64": {"sites": sites(sha256="abc")},
    "sites[0].rows: must be at least 1": {"sites": sites(rows=0)},
    "sites[0].path: unknown key": {"sites": sites(path="x")},
    "sites[0].only[0].up_to: must be greater than over": {
        "sites": sites(only=[{"column": "a", "over": 1, "up_to": 1}])
    },
    "sites[0].only[0].above: unknown key": {"sites": sites(only=[{"column": "a", "above": 1}])},
    "split.test: must be greater than 0": {"split": {"test": 0}},
    "split.test: must be less than 1": {"split": {"test": 1}},
    "data.incomplete: 'ignore' is not one of": {"data": {"incomplete": "ignore"}},
    "data.origin: unknown key": {"data": {"origin": "uci-heart-disease"}},
    "lisence: unknown key": {"lisence": "MIT"},
    "features[0].range: is empty": {"features": [{"name": "age", "kind": "continuous", "range": [2, 1]}]},
}


@pytest.mark.parametrize("expected", BAD)
def test_mistakes_are_named_with_their_place(expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(own(**BAD[expected]))
    assert str(caught.value).startswith(f"own.toml: {expected}")
    assert caught.value.hint


def test_files_that_are_no_scenario(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: no such file"):
        load(str(tmp_path / "none.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(ConfigError, match=r"folder\.toml: cannot be read: Is a directory"):
        load(str(tmp_path / "folder.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load(str(tmp_path / "binary.toml"))
    (tmp_path / "cut.toml").write_text('name = "a"\nsites = [', "utf-8")
    with pytest.raises(ConfigError, match=r"cut\.toml: not valid TOML"):
        load(str(tmp_path / "cut.toml"))
