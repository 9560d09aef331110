"""Scenario files: the built-in ones, the example of the how-to, and mistakes in anybody's."""

import math
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from clients.split import Split
from privacy.errors import ConfigError
from privacy.secagg.context import thresholds
from simulations.data.datasets import at_hand, load_sites
from simulations.data.deal import Deal
from simulations.scenario import RowRule, Scenario, load, names, parse_scenario
from strategies import registry
from strategies.models import build
from strategies.parts import AgentSpec, Division, PartSpec
from strategies.task import ModelSpec, SiteId, Target

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "own-data"


def test_built_in_names() -> None:
    assert names() == (
        "banks",
        "banks-parts",
        "digits",
        "digits-chain",
        "digits-depth",
        "digits-width",
        "fashion",
        "fashion-depth",
        "fashion-width",
        "hospitals",
        "hospitals-flamby",
        "hospitals-parts",
    )


@pytest.mark.parametrize("name", names())
def test_built_in_scenarios_hold_together(name: str) -> None:
    scenario = load(name)
    assert scenario.name == name
    assert scenario.licence == ("MIT" if name.startswith("fashion") else "CC BY 4.0")
    assert scenario.source.startswith(("https://doi.org/", "https://github.com/zalandoresearch/"))
    assert scenario.deal or all(site.sha256 and site.rows for site in scenario.sites)
    assert len({load(other).title for other in names()}) == len(names())
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


def n_parameters(spec: ModelSpec, n_inputs: int) -> int:
    return sum(parameter.numel() for parameter in build(spec, n_inputs, seed=0).parameters())


# Whole model and part, counted by hand: weights and biases of layers, scales and shifts of norms, heads.
PARTS = {
    "hospitals-parts": (13 * 16 + 16 + 16 + 1, 13 * 4 + 4 + 4 + 1),
    "banks-parts": ((26 * 32 + 32 + 32 + 1) + (32 * 32 + 32 + 32 + 1), 26 * 32 + 32 + 32 + 1),
    "digits": ((9 * 16 + 48) + (16 * 9 * 32 + 96) + 330, (9 * 4 + 12) + (4 * 9 * 8 + 24) + 90),
    "digits-depth": ((64 * 128 + 128 + 1290) + (128 * 128 + 128 + 1290), 64 * 128 + 128 + 1290),
    "digits-width": (64 * 128 + 128 + 128 * 128 + 128 + 1290, 64 * 32 + 32 + 32 * 32 + 32 + 330),
    "fashion": ((9 * 16 + 48) + (16 * 9 * 32 + 96) + 330, (9 * 4 + 12) + (4 * 9 * 8 + 24) + 90),
    "fashion-depth": ((784 * 128 + 128 + 1290) + (128 * 128 + 128 + 1290), 784 * 128 + 128 + 1290),
    "fashion-width": (784 * 128 + 128 + 128 * 128 + 128 + 1290, 784 * 32 + 32 + 32 * 32 + 32 + 330),
}


@pytest.mark.parametrize("name", PARTS)
def test_divided_scenarios_hold_the_floor_and_not_more(name: str) -> None:
    scenario = load(name)
    (part,) = scenario.division.parts
    model, n_inputs = scenario.task.model, scenario.task.n_inputs
    assert (n_parameters(model, n_inputs), n_parameters(model.part(part.width, part.depth), n_inputs)) == PARTS[name]
    with_all = len(scenario.sites) - len(part.sites)
    assert with_all == thresholds(len(scenario.sites)).min_cover  # zero slack, as the notes say
    assert "the fewest" in scenario.notes


def test_digits_and_fashion_differ_in_images_and_model_only() -> None:
    for suffix in ("", "-depth", "-width"):
        digits, fashion = load(f"digits{suffix}"), load(f"fashion{suffix}")
        assert (digits.deal, digits.division, digits.split) == (fashion.deal, fashion.division, fashion.split)
        assert [site.id for site in digits.sites] == [site.id for site in fashion.sites]
        assert (digits.n_rows, fashion.n_rows) == (1797, 6000)
        assert (digits.task.n_inputs, fashion.task.n_inputs) == (64, 784)
        assert digits.task.target == fashion.task.target == Target("label", classes=10)
        for scenario in (digits, fashion):
            # A pass takes a strong agent ninths of a weak one's steps, rounded up to whole batches.
            weak, strong = scenario.task.training, scenario.agents[SiteId("a0")].training(scenario.task.training)
            train = [int(scenario.n_rows * share * 0.75) for share in (0.18, 0.02)]
            passes = weak.local_steps / math.ceil(train[0] / weak.batch)
            assert passes in (1, 2, 3)
            assert strong.local_steps == passes * math.ceil(train[1] / weak.batch)
            assert set(scenario.agents) == {f"a{index}" for index in range(5)}


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
        f"There are: {', '.join(names())}; or give the path of a .toml file of your own.",
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


def shared(**data: Any) -> dict[str, Any]:
    """Returns a document whose three sites share a file."""
    return own(sites=[{"id": name, "file": "all.csv", "share": 0.2} for name in "abc"], data=data)


def test_one_file_may_be_dealt() -> None:
    scenario = parsed(shared(deal={"kind": "shares", "seed": 3}, rows=90))
    assert scenario.deal == Deal("shares", {SiteId(name): 0.2 for name in "abc"}, seed=3)
    assert (scenario.table_rows, scenario.n_rows) == (90, 90)
    assert parsed(own()).deal is None


def test_parts_and_agents_arrive() -> None:
    parts = [{"name": "narrow", "sites": ["a"], "width": 0.5}]
    agents = {"b": {"kind": "scikit-learn", "local_steps": 3}}
    scenario = parsed(own(sites=sites(), submodels={"parts": parts, "private": ["2.*"]}, agents=agents))
    assert scenario.division == Division((PartSpec("narrow", (SiteId("a"),), 0.5),), ("2.*",))
    assert scenario.agents == {"b": AgentSpec("scikit-learn", {"local_steps": 3})}
    assert (parsed(own()).division, parsed(own()).agents) == (Division(), {})


def test_a_public_table_has_to_be_dealt() -> None:
    document = {
        "name": "d",
        "title": "D",
        "target": {"name": "label", "classes": 10},
        "features": [{"name": "pixel_{}", "count": 64, "kind": "continuous", "range": [0, 16]}],
        "model": {"kind": "logistic"},
        "training": {"rounds": 1, "learning_rate": 1},
        "sites": [{"id": name} for name in "abc"],
        "data": {"origin": "sklearn-digits"},
    }
    with pytest.raises(ConfigError, match=r"^data\.deal: is missing: the rows of this origin are one table$"):
        parse_scenario(document, where="", folder=None)
    dealt = {**document, "data": {"origin": "sklearn-digits", "deal": {"kind": "dirichlet"}}}
    assert len(load_sites(parse_scenario(dealt, where="", folder=None), None)) == 3
    named = {**dealt, "sites": [{"id": name, "file": "x.csv"} for name in "abc"]}
    with pytest.raises(ConfigError, match=r"^sites\[0\]\.file: unknown key$"):
        parse_scenario(named, where="", folder=None)


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
    "split.seed: must be at most 4294967295, not 4294967296": {"split": {"seed": 2**32}},
    "split.seed: must be at least 0": {"split": {"seed": -1}},
    "data.incomplete: 'ignore' is not one of": {"data": {"incomplete": "ignore"}},
    "data.origin: unknown key": {"data": {"origin": "uci-heart-disease"}},
    "data.deal.kind: is missing": shared(deal={}),
    "data.deal: is missing: sites have a share": shared(),
    "data.rows: goes with deal": own(data={"rows": 9}),
    "data.deal: deals one table": own(sites=sites(), data={"deal": {"kind": "shares"}}),
    "data.deal: deals single rows": {**shared(deal={"kind": "shares"}), "patient": "who"},
    "sites[0].share: must be a finite number": own(sites=sites(share="all")),
    "submodels.parts[0].sites: there is no site 'z'": {"submodels": {"parts": [{"name": "p", "sites": ["z"]}]}},
    "agents.z: there is no site 'z'": {"agents": {"z": {"local_steps": 1}}},
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
