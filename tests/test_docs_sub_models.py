"""docs/sub-models.md and what the other pages say of sub-models: snippets read, commands exist, numbers recomputed."""

import re
import runpy
import statistics
import tomllib
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from clients import sites
from clients.agent import Agent
from clients.records import Records
from clients.work import Site, contribute
from privacy import command
from privacy.secagg.context import thresholds
from simulations import reference
from simulations.bench import divided as bench
from simulations.data.datasets import load_sites
from simulations.divided import is_divided, measure_division
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options, parse_settings
from simulations.reference import federate
from simulations.scenario import load
from strategies.devices import read_devices
from strategies.fed_avg import FedAvg
from strategies.models import build, layout_of
from strategies.sub_models import by_shape
from strategies.task import ModelSpec, SiteId
from tests.clients import example

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "sub-models.md").read_text("utf-8")
HOW_TO = (DOCS / "how-to-own-data.md").read_text("utf-8")
ADR = (DOCS / "adr" / "0009-sub-models.md").read_text("utf-8")
PICTURES = sorted((DOCS / "images").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, flags=re.DOTALL)


def rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the rows of the Markdown table with this first heading."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", page, flags=re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


def job(scenario: str, *settings: str, privacy: str = "none") -> Job:
    return resolve(Options(scenario=scenario, privacy=privacy, settings=parse_settings(list(settings))))


SCENARIOS = [(page, text) for page in (PAGE, HOW_TO) for text in blocks(page, "toml") if "based_on" in text]


@pytest.mark.parametrize(("page", "text"), SCENARIOS, ids=[str(tomllib.loads(text)["name"]) for _, text in SCENARIOS])
def test_every_scenario_that_is_shown_resolves(page: str, text: str, tmp_path: Path) -> None:
    example_folder = DOCS / "examples" / "own-data"
    for source in example_folder.iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    tables = [source.read_text("utf-8") for source in sorted(example_folder.glob("*.csv"))]
    heading = tables[0].partition("\n")[0]
    (tmp_path / "all.csv").write_text(heading + "\n" + "".join(table.partition("\n")[2] for table in tables), "utf-8")
    path = tmp_path / "shown.toml"
    path.write_text(text, "utf-8")
    found, shown = job(str(path)), tomllib.loads(text)
    assert found.scenario.name == shown["name"]
    assert is_divided(found) is (bool({"submodels", "chain"} & shown.keys()) or shown["based_on"] == "digits")
    assert set(found.agents) >= set(shown.get("agents", {}))
    if page is HOW_TO:
        assert len(load_sites(load(str(path)), None)) == 3


def test_the_shown_deal_and_agents_are_those_that_run() -> None:
    documents = {str(tomllib.loads(text)["name"]): tomllib.loads(text) for _, text in SCENARIOS}
    assert documents["uneven-digits"]["data"]["deal"]["kind"] == "dirichlet"
    assert documents["mixed"]["agents"]["va"] == {"kind": "scikit-learn"}
    assert (
        documents["three-wide"]["submodels"]
        == tomllib.loads((ROOT / "simulations" / "scenarios" / "hospitals-parts.toml").read_text("utf-8"))["submodels"]
    )


def test_every_other_snippet_is_a_devices_file(tmp_path: Path) -> None:
    (text,) = [text for text in blocks(PAGE, "toml") if "based_on" not in text]
    (tmp_path / "devices.toml").write_text(text, "utf-8")
    assert [device.name for device in read_devices(tmp_path / "devices.toml").devices] == ["strong", "weak"]


COMMANDS = [line for text in blocks(PAGE, "console") for line in re.findall(r"^\$ collegium (.*)$", text, re.MULTILINE)]
COMMANDS += re.findall(r"`collegium (simulate .*?)`", PAGE.replace("\n", " "))


def test_every_command_of_the_page_exists_with_its_options(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    assert len(COMMANDS) >= 5
    for name in {line.split()[0] for line in COMMANDS}:
        assert command._outcome([name, "--help"]) == 0
        shown = capsys.readouterr().out
        options = {option for line in COMMANDS if line.startswith(name) for option in re.findall(r"--[a-z-]+", line)}
        assert not [option for option in options if option not in shown]


@pytest.mark.parametrize("line", sorted({line for line in COMMANDS if line.startswith("simulate")}))
def test_every_run_of_the_page_is_one_that_starts(line: str) -> None:
    words = line.split()
    settings = [words[k + 1] for k, word in enumerate(words) if word == "--set"]
    privacy = words[words.index("--privacy") + 1] if "--privacy" in words else "record"
    assert job(words[1], *settings, privacy=privacy).scenario.name == words[1]


def test_floors_are_those_of_the_protocol() -> None:
    shown = [tuple(map(int, row)) for row in rows(PAGE, "sites")]
    computed = [(n, (t := thresholds(n)).n_c, t.min_survivors, t.min_cover) for n, *_ in shown]
    assert shown == computed
    assert {n: floor for n, *_, floor in shown} | {4: 3, 10: 5} == {n: floor for n, *_, floor in shown}
    assert "(5 at n = 10, 3 at n = 4)" in ADR
    assert thresholds(6).min_cover == 3 < thresholds(7).min_cover  # "three sites, more from seven sites on"


def test_what_a_site_sends_is_what_a_job_says() -> None:
    largest: dict[str, int] = {}
    for run, parameters, private, sent, share in rows(PAGE, "run, part"):
        name, part = run.replace("`", "").split(", ")
        found = job(name)
        held = found.part_of(next(site for site in found.sites if found.division.part_of(site).name == part))
        largest.setdefault(name, held.held.size)  # the whole stands first
        assert parameters == f"{held.piece.size:,}"
        assert int(private) == held.piece.size - held.held.size
        assert sent == f"{8 * held.held.size:,} B"
        exact = 100 * held.held.size / largest[name]
        assert share == ("100 %" if exact == 100 else f"{exact:.1f} %")


def test_the_published_network_is_counted_right() -> None:
    whole = ModelSpec("cnn", (64, 128, 256, 512), "torch", image=(1, 28, 28), outputs=10)
    sizes = [layout_of(build(one, 784, seed=0)).size for one in (whole, whole.part(0.25))]
    assert f"has {sizes[0]:,} parameters, its quarter {sizes[1]:,}, which is\n{100 * sizes[1] / sizes[0]:.1f} %" in PAGE


def test_places_in_the_picture_are_those_of_the_part() -> None:
    whole, half = (layout_of(build(ModelSpec("mlp", (units,), "torch"), 3, seed=0)) for units in (4, 2))
    held = " ".join(map(str, by_shape(whole, half).held))
    assert (whole.size, f"holds the places {held}." in PAGE) == (21, True)
    drawn = ET.fromstring((DOCS / "images" / "index-sets.svg").read_text("utf-8"))  # noqa: S314 - we drew it
    on = [element.text or "" for element in drawn.iter(f"{SVG}text") if element.get("class") == "on"]
    assert on[-11:] == held.split()
    assert on[11:22] == held.split()


def test_regions_of_the_four_hospitals_are_those_in_the_text_and_the_picture() -> None:
    found = job("hospitals-parts")
    inner, outer = found.plan.regions()
    sizes = inner.positions.size, outer.positions.size
    assert (len(inner.holders), len(outer.holders), *sizes) == (4, 3, 56, 168)
    assert "region 1 (168 parameters of 3 sites) stood still" in PAGE
    drawn = (DOCS / "images" / "regions.svg").read_text("utf-8")
    assert all(f">{size} parameters<" in drawn for size in sizes)
    assert f">floor {thresholds(4).min_cover}<" in drawn
    assert f">floor {thresholds(10).min_cover}<" in drawn


def test_scores_of_the_four_hospitals_are_those_of_the_run() -> None:
    table = next(text for text in blocks(PAGE, "text") if text.startswith("Parts of the model"))
    found = job("hospitals-parts")
    data = load_member_data(found)
    measured = measure_division(found, data, federate(found, data), ())
    assert measured.strong is not None
    scores = [*(part.score[-1] for part in measured.parts), measured.smallest.score, measured.strong.score]
    assert re.findall(r"(\d\.\d{3})$", table, re.MULTILINE) == [f"{score:.3f}" for score in scores]
    assert f"{len(data[SiteId('switzerland')].test.y)} test rows are all that `switzerland` has" in PAGE
    assert measured.slack == 0


@pytest.mark.soak
@pytest.mark.parametrize("name", ["digits-depth", "digits-width", "fashion-depth", "fashion-width"])
def test_means_over_seeds_are_those_of_the_bench(name: str) -> None:
    shown = [row for row in rows(PAGE, "scenario, dealt by") if row[0].startswith(f"`{name}`")]
    measured = bench._rows(name, 5, StringIO())
    assert [row[0] for row in shown] == [f"`{name}`, {row['deal']}" for row in measured]
    for row, found in zip(shown, measured, strict=True):
        means = [statistics.fmean(found[key]) for key in ("whole", "strong_only", "smallest_for_all")]
        part = statistics.fmean(scores[0] for scores in [*found["parts"].values()][-1])
        written = [f"{value:.3f}".removeprefix("0") for value in (*means, part)]
        assert [row[1], row[2], row[4], row[5].split()[-1]] == written
        assert row[3] == f"{found['least_gain']:+.3f}".replace("+0.", "+.")
        assert found["least_gain"] > 0  # "in every row and with every seed"


def test_the_devices_of_the_page_give_the_table_of_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (devices,) = [text for text in blocks(PAGE, "toml") if "based_on" not in text]
    (tmp_path / "devices.toml").write_text(devices, "utf-8")
    assert command._outcome(["plan", "digits-width", "--devices", str(tmp_path / "devices.toml")]) == 0
    shown = next(text for text in blocks(PAGE, "text") if text.startswith("Alone"))
    lines = {" ".join(line.split()) for line in capsys.readouterr().out.splitlines()}
    assert [line for line in shown.splitlines() if "─" not in line and " ".join(line.split()) not in lines] == []


@pytest.fixture(scope="module")
def own_agent() -> Callable[..., Agent]:
    made: Any = runpy.run_path(str(DOCS / "examples" / "own_agent.py"))["NumpyAgent"]
    return lambda one: made(one.agent.training, one.records)


def test_the_page_shows_the_agent_that_is_tested_here() -> None:
    assert (DOCS / "examples" / "own_agent.py").read_text("utf-8") in blocks(PAGE, "python")


def test_the_own_agent_takes_torchs_steps(own_agent: Callable[..., Agent]) -> None:
    torchs = example.site()
    own = replace(torchs, agent=own_agent(torchs))
    start = {"model": example.START}
    expected, found = (contribute(each, start, round_number=1).contribution.arrays["update"] for each in (torchs, own))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_own_agent_trains_in_a_federation(own_agent: Callable[..., Agent], monkeypatch: pytest.MonkeyPatch) -> None:
    """One clinic of three with numpy: the same sums, so the same model but for rounding."""
    found = replace(job(str(DOCS / "examples" / "own-data" / "clinics.toml")), algorithm=FedAvg())
    data = load_member_data(found)
    expected = federate(found, data).model

    def site_of(of: Job, its: SiteId, records: Records) -> Site:
        one = sites.site_of(of, its, records)
        return replace(one, agent=own_agent(one)) if one.id == "harbour" else one

    monkeypatch.setattr(reference, "site_of", site_of)
    np.testing.assert_allclose(federate(found, data).model, expected, atol=1e-5)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.name)
def test_pictures_say_what_they_show_and_load_nothing(picture: Path) -> None:
    text = picture.read_text("utf-8")
    root = ET.fromstring(text)  # noqa: S314 - we drew it
    assert root.get("role") == "img"
    assert all((root.findtext(f"{SVG}{name}") or "").strip() for name in ("title", "desc"))
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"href|url\(|@import|<script", text)
    assert f"images/{picture.name})" in PAGE


def test_links_of_the_page_lead_somewhere() -> None:
    for page, folder in ((PAGE, DOCS), (HOW_TO, DOCS)):
        targets = re.findall(r"\]\(([^)#:]+)\)", page)
        assert [target for target in targets if not (folder / target).exists()] == []
    assert len(PICTURES) == 4
