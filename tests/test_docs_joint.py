"""The page on agents that answer and train together, its picture, its example and its demo."""

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree as ET

import pytest
import torch

from clients.joint.client import Answer, Client
from privacy import command
from strategies.chain_plan import ChainPlan, check_crossings, parse_chain_plan

ROOT = Path(__file__).parent.parent
DOCS, EXAMPLES = ROOT / "docs", ROOT / "docs" / "examples"
PAGE = (DOCS / "how-to-joint.md").read_text("utf-8")
PICTURE = DOCS / "joint.svg"
SVG = "{http://www.w3.org/2000/svg}"


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [text for each, text in found if each == kind]


def sources() -> str:
    packages = ("clients", "privacy", "strategies", "simulations")
    return "\n".join(path.read_text("utf-8") for each in packages for path in sorted((ROOT / each).rglob("*.py")))


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example as a module, found as a person's own would be."""
    monkeypatch.chdir(EXAMPLES)
    spec = importlib.util.spec_from_file_location("digits_chain", EXAMPLES / "digits_chain.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "digits_chain", module)
    spec.loader.exec_module(module)
    return module


def test_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert "joint.svg" in targets
    assert [target for target in targets if not (DOCS / target).exists()] == []


def test_the_picture_says_what_it_shows_and_loads_nothing() -> None:
    text = PICTURE.read_text("utf-8")
    root = ET.fromstring(text)  # noqa: S314 - we drew it
    assert root.get("role") == "img"
    assert all((root.findtext(f"{SVG}{name}") or "").strip() for name in ("title", "desc"))
    assert "prefers-color-scheme: dark" in text
    assert not re.findall(r"href|url\(|@import|<script", text)
    heads = [each.text or "" for each in root.iter(f"{SVG}text") if each.get("class") == "head"]
    assert [head.partition(":")[0] for head in heads] == ["local", "ensemble", "chain", "split training"]


def test_every_option_that_the_page_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["serve"], ["predict"], ["stage", "serve"], ["plan"], ["simulate"]):
        command._outcome([*words, "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]+", PAGE)) <= known


def test_the_python_of_the_page_names_what_there_is() -> None:
    (text,) = blocks("python")
    imports, _, rest = text.partition("\n\nwith ")
    exec(compile(imports, "page", "exec"), {})  # noqa: S102 - our own page
    compile(f"with {rest}", "page", "exec")
    assert set(re.findall(r"answer\.(\w+)", rest)) <= set(Answer.__dataclass_fields__)
    assert hasattr(Client, "study")


def test_the_chain_of_the_page_is_the_scenarios() -> None:
    (text,) = blocks("toml")
    scenario = (ROOT / "simulations" / "scenarios" / "digits-chain.toml").read_text("utf-8")
    assert tomllib.loads(text)["chain"] == tomllib.loads(scenario)["chain"]


def test_the_refusals_of_the_page_are_what_the_code_says() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## When it refuses")[2], flags=re.MULTILINE)
    assert len(rows) == 10
    parts = [part.rpartition("): ")[2].strip() for row in rows for part in row.split("…")]
    code = sources()
    assert [part for part in parts if len(part) > 1 and part not in code] == []


def planned(folder: Path) -> ChainPlan:
    devices = str(EXAMPLES / "devices-digits.toml")
    code = command._outcome(
        ["plan", "digits_chain:network", "--optimizer", "sgd", "--devices", devices, "--out", str(folder)]
    )
    assert code == 0
    return parse_chain_plan((folder / "plan.json").read_bytes())


def test_the_example_is_cut_into_a_u_and_everybody_builds_the_same_network(tmp_path: Path, example: ModuleType) -> None:
    first, again = example.network()[0].state_dict(), example.network()[0].state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    plan = planned(tmp_path / "plan")
    assert [stage.device for stage in plan.stages] == ["cleveland-pc", "hungarian-pc", "va-pc", "cleveland-pc"]
    check_crossings(plan)
    assert f'"chain_digest": "{plan.digest}"' in (tmp_path / "plan" / "plan.json").read_text()
    assert len(example.batches()) == example.STEPS
    assert all(len(x) == len(y) == example.BATCH for x, y in example.batches())


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_the_demo_does_what_the_page_says(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        [str(DOCS / "joint-demo.sh"), str(tmp_path / "demo")],
        capture_output=True, text=True, check=False, timeout=1700, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "ensemble: 4 sites, " in ran.stdout
    assert ran.stdout.count("local: 1 site, ") == 2
    assert "ensemble: no joint answer: va: " in ran.stderr
    assert "nobody may ask for 'curiosity', only for diagnosis" in ran.stderr
    assert "bit for bit: yes" in ran.stdout
