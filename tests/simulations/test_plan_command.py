"""`collegium plan` as a person meets it: sheet, JSON, picture, refusals; and the page that explains it."""

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from privacy import command
from privacy.audit import schemas
from strategies.devices import read_devices

DOCS = Path(__file__).parent.parent.parent / "docs"
EXAMPLES = DOCS / "examples"
PAGE = (DOCS / "how-to-plan.md").read_text("utf-8")
DEVICES = str(EXAMPLES / "devices.toml")
RELEASED = str(EXAMPLES / "devices-released.toml")

MODELS = """
import torch
from torch import nn
from torch.nn import functional

print("made", "noise on stdout")

def mlp():
    print("made", "more noise")
    return nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)), torch.zeros(4, 8)

class Chooses(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
    def forward(self, x):
        if x.sum() > 1e9:
            x = -x
        return self.last(self.first(x))

def whole():
    return Chooses(), (torch.ones(2, 4),)

def inside():
    return nn.Sequential(nn.Linear(4, 4), Chooses(), nn.Linear(2, 2)), (torch.ones(2, 4),)

def values():
    assert torch.linspace(0, 1, 3)[1].item() == 0.5
    return nn.Linear(3, 1), torch.zeros(2, 3)

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.mid, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9, bias=False)
        self.head.weight = self.words.weight
        self.spare = nn.Linear(2, 2)
    def forward(self, x):
        return self.head(functional.relu(self.mid(self.words(x))))

def tied():
    return Tied(), (torch.zeros(2, 3, dtype=torch.long),)

def raises():
    raise RuntimeError("no disk\\nsecond line")

def shapes():
    return nn.Linear(3, 1), (torch.zeros(2, 5),)

def wrong():
    return nn.Linear(3, 1)

def strings():
    return nn.Linear(3, 1), ("a",)

number = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with models, and the command mounted as it will be."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(command._LAZY, "plan", ("simulations.planning.command", "Say who could hold what."))
    (tmp_path / "plan_models.py").write_text(MODELS)
    (tmp_path / "broken_module.py").write_text("import not_there_at_all\n")
    (tmp_path / "syntax_module.py").write_text("def f(:\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in {"plan_models", "broken_module", "syntax_module", "models"}:
            del sys.modules[name]


def ran(*arguments: str) -> int:
    return command._outcome(["plan", *arguments])


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    assert ran(*arguments, "--json") == code
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    schemas.check("plan-v1", result)
    return result


@pytest.mark.parametrize("more", [(), ("--objective", "throughput"), ("--inference",), ("--optimizer", "sgd")])
@pytest.mark.parametrize("model", ["hospitals", "banks", "plan_models:mlp", "plan_models:tied"])
def test_json_fits_its_schema(
    here: Path, capsys: pytest.CaptureFixture[str], model: str, more: tuple[str, ...]
) -> None:
    assert here.exists()
    result = as_json(capsys, model, "--devices", RELEASED, *more)
    assert result["model"] == model
    assert list(result["plan"]) == [device.name for device in read_devices(Path(RELEASED)).devices]
    assert result["work"]["train"] == ("--inference" not in more)
    assert (result["work"]["optimizer"] is None) == ("--inference" in more)
    held = [stage for device in result["plan"].values() for stage in device["stages"]]
    held.sort(key=lambda stage: stage["stage"])
    assert [stage["stage"] for stage in held] == list(range(1, len(held) + 1))
    assert (held[0]["start"], held[-1]["end"]) == ("", "")
    assert all(first["end"] == second["start"] for first, second in pairwise(held))
    assert result["cost"]["objective"] == ("throughput" if "throughput" in more else "latency")


def test_a_scenarios_own_optimizer_is_the_default(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    assert as_json(capsys, "hospitals", "--devices", DEVICES)["work"]["optimizer"] == "sgd"
    assert as_json(capsys, "plan_models:mlp", "--devices", DEVICES)["work"]["optimizer"] == "adam"


def test_memory_is_for_the_records_of_a_step_or_the_sheet_says_what_it_is_for(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hospitals train on all records at once, and how many a site has is not in their study."""

    def told(name: str, *more: str) -> tuple[int, bool]:
        found = as_json(capsys, name, "--devices", DEVICES, *more)["analysis"]
        return found["records"], any("all records of a site at once" in note for note in found["notes"])

    capped = 'based_on = "hospitals"\nname = "capped"\ntitle = "x"\n[data]\nrows_per_site = 300\n'
    (here / "capped.toml").write_text(capped)
    assert told("hospitals") == (32, True)
    assert told("hospitals", "--inference") == (32, False)
    assert told("banks") == (60, False)
    assert told("capped.toml") == (300, False)


def test_the_pieces_hold_every_key_once_and_fit(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    result = as_json(capsys, "plan_models:mlp", "--devices", str(two_small(here)))
    keys = [key for device in result["plan"].values() for stage in device["stages"] for key in stage["keys"]]
    assert sorted(keys) == sorted(f"{layer}.{name}" for layer in (0, 2, 4) for name in ("weight", "bias"))
    for device in result["plan"].values():
        assert device["stages"]
        assert device["memory"] == sum(stage["memory"] for stage in device["stages"]) <= device["memory_limit"]
    hop, labels = result["hops"]
    assert hop["releases"] == labels["releases"] == []
    assert (labels["at"], labels["seconds"]) == ("output", 0)
    assert hop["at"] in {cut["node"] for cut in result["cuts"]}
    (cut,) = (cut for cut in result["cuts"] if cut["node"] == hop["at"])
    assert cut["step_bytes"] == 2 * cut["bytes"]
    assert cut["head_flops"] + cut["tail_flops"] == result["analysis"]["flops"]


def two_small(folder: Path, organisation: str = "clinic", release: str = "") -> Path:
    path = folder / "small.toml"
    entry = """
    [[devices]]
    name = "{}"
    organisation = "{}"
    speed = "1 GFLOP/s"
    memory = "72 kB"
    bandwidth = "1 Gbit/s"
    round_trip = "1 ms"
    """
    path.write_text(textwrap.dedent(entry.format("a", "clinic") + entry.format("b", organisation) + release))
    return path


def test_no_chain_is_a_refusal_that_says_why(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    across = str(two_small(here, "lab"))
    result = as_json(capsys, "plan_models:mlp", "--devices", across, code=1)
    assert result["cost"] is None
    assert result["hops"] == []
    assert "its releases do not let enough pass" in result["refused"]
    assert ran("plan_models:mlp", "--devices", across, "--out", "plan") == 1
    printed = capsys.readouterr()
    assert "No chain: clinic has too little memory for the whole model" in printed.out
    assert (here / "plan" / "plan.svg").exists()
    small = two_small(here)
    small.write_text(small.read_text().replace("72 kB", "0.02 kB"))
    result = as_json(capsys, "plan_models:mlp", "--devices", str(small), code=1)
    assert "no cut makes pieces that fit" in result["refused"]
    assert {device["alone"]["kind"] for device in result["plan"].values()} == {"none"}


def test_a_release_opens_the_way_and_is_repeated(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = """
    [[releases]]
    owner = "clinic"
    to = "lab"
    what = ["activations", "gradients", "labels"]
    unsafe = "made-up patients"
    """
    result = as_json(capsys, "plan_models:mlp", "--devices", str(two_small(here, "lab", release)))
    released = [each for hop in result["hops"] for each in hop["releases"]]
    assert [(each["what"], each["to"]) for each in released] == [("activations", "b"), ("labels", "b")]
    assert all("UNSAFE" in each["terms"] and "made-up patients" in each["terms"] for each in released)


def test_out_holds_the_json_and_the_picture_and_both_are_the_same_every_time(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("one", "two"):
        assert ran("plan_models:mlp", "--devices", RELEASED, "--out", folder) == 0
        assert f"Plan: {folder}/plan.json; picture: {folder}/plan.svg." in capsys.readouterr().out
    files = {path.name for path in (here / "one").iterdir()}
    assert files == {"plan.json", "plan.svg"}
    for name in files:
        assert (here / "one" / name).read_bytes() == (here / "two" / name).read_bytes()
    result = as_json(capsys, "plan_models:mlp", "--devices", RELEASED)
    assert json.loads((here / "one" / "plan.json").read_text()) == result
    picture = ET.fromstring((here / "one" / "plan.svg").read_text())  # noqa: S314 - we drew it
    texts = ["".join(each.itertext()) for each in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ward-pc", "server-room", "cloud-gpu"} <= set(texts)
    bars = [each for each in picture.iter("{http://www.w3.org/2000/svg}rect") if each.get("class") in {"bar", "chosen"}]
    assert len(bars) == len(result["cuts"])


def test_names_reach_the_picture_escaped(here: Path) -> None:
    path = two_small(here)
    path.write_text(path.read_text().replace('"a"', '"<a & b>"'))
    assert ran("plan_models:mlp", "--devices", str(path), "--out", "plan") == 0
    picture = (here / "plan" / "plan.svg").read_text()
    assert "<a & b>" not in picture
    assert "&lt;a &amp; b&gt;" in picture
    ET.fromstring(picture)  # noqa: S314 - we drew it


def test_what_a_factory_prints_is_not_on_stdout(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    assert ran("plan_models:mlp", "--devices", DEVICES, "--json") == 0
    printed = capsys.readouterr()
    json.loads(printed.out)
    assert "more noise" in printed.err


def test_what_a_person_should_know_about_the_model_is_said(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    assert ran("plan_models:tied", "--devices", DEVICES) == 0
    said = capsys.readouterr().out
    assert "Note: head.weight and words.weight are one tensor" in said
    assert "Note: no operation uses spare.bias, spare.weight." in said
    assert sum(line.split()[-1:] == ["tied"] for line in said.splitlines()) == 3, "a mark a cut"
    assert ran("plan_models:inside", "--devices", DEVICES) == 0
    said = capsys.readouterr().out
    assert "Note: Chooses cannot be traced inside, so it is kept whole: " in said
    assert "so it was measured on the example inputs." in said
    assert ran("plan_models:values", "--devices", DEVICES) == 0, "a factory that needs values gets them"
    assert "No valid cut" in capsys.readouterr().out


def test_declared_blocks_stand_in(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    assert ran("plan_models:whole", "--devices", DEVICES) == 2
    assert "cannot be traced" in capsys.readouterr().err
    result = as_json(capsys, "plan_models:whole", "--devices", DEVICES, "--blocks", "first,last")
    assert len(result["cuts"]) == 1
    assert ran("plan_models:whole", "--devices", DEVICES, "--blocks", "last") == 2
    assert "do not compute Chooses" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "there is no scenario 'nothing'"),
        (["missing.toml"], "missing.toml: no such file"),
        (["no_such_module:f"], "there is no module 'no_such_module' here"),
        (["plan_models.deeper:f"], "there is no module 'plan_models.deeper' here"),
        (["broken_module:f"], "broken_module fails: ModuleNotFoundError: No module named 'not_there_at_all'"),
        (["syntax_module:f"], "syntax_module fails: SyntaxError: "),
        (["plan_models:nothing"], "plan_models has no function 'nothing'"),
        (["plan_models:number"], "plan_models has no function 'number'"),
        ([":f"], "':f' is not module:factory"),
        (["plan_models:"], "'plan_models:' is not module:factory"),
        (["plan_models:raises"], "plan_models:raises fails: RuntimeError: no disk"),
        (["plan_models:wrong"], "plan_models:wrong returned Linear, not (module, example_inputs)"),
        (["plan_models:strings"], "the example inputs must be tensors, not a tuple of (str)"),
        (["plan_models:shapes"], "Linear does not run on the example inputs: "),
        (["plan_models:mlp", "--objective", "money"], "there is no --objective 'money'"),
        (["plan_models:mlp", "--optimizer", "lion"], "there is no --optimizer 'lion'"),
        (["plan_models:mlp", "--in-flight", "0"], "--in-flight must be from 1 to 64, not 0"),
        (["plan_models:mlp", "--in-flight", "3"], "--in-flight has no effect on latency"),
        (["plan_models:mlp", "--blocks", "0,9"], "has no submodule '9'"),
        (["plan_models:mlp", "--out", "plan_models.py"], "plan_models.py exists and is not an empty folder"),
        (["plan_models:mlp", "--out", "."], "exists and is not an empty folder"),
        (["plan_models:mlp", "--out", "plan_models.py/x"], "plan_models.py/x cannot be written"),
        (["plan_models:mlp", "--devices", "nowhere.toml"], "nowhere.toml: no such file"),
        (["plan_models:mlp", "--devices", "plan_models.py"], "plan_models.py: not valid TOML"),
    ],
)
def test_unusable_input_ends_in_a_plain_line_and_a_hint(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert here.exists()
    devices = [] if "--devices" in arguments else ["--devices", DEVICES]
    assert ran(*arguments, *devices) == 2
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("made ")]
    assert said in lines[0]
    assert len(lines) <= 2
    assert not printed.out


def test_without_devices_the_command_says_what_is_missing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    assert ran("plan_models:mlp") == 2
    assert "Missing option '--devices'" in capsys.readouterr().err


# The page.


def blocks(kind: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    return [text for each, text in found if each == kind]


def test_the_pages_commands_print_what_it_shows(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in EXAMPLES.glob("*.*"):
        (here / path.name).write_bytes(path.read_bytes())
    monkeypatch.syspath_prepend(str(here))
    commands = [line.split() for line in "".join(blocks("")).splitlines()]
    assert len(commands) == len(blocks("text")) == 2
    for words, shown in zip(commands, blocks("text"), strict=True):
        assert words[:2] == ["collegium", "plan"]
        assert ran(*words[2:]) == 0
        printed = [line.rstrip() for line in capsys.readouterr().out.rstrip().splitlines()]
        expected = shown.rstrip().splitlines()
        assert printed[-len(expected) :] == expected
    assert "models:cnn" in blocks("text")[0]


def test_the_page_shows_the_example_files() -> None:
    devices, release = blocks("toml")
    assert devices == (EXAMPLES / "devices.toml").read_text("utf-8")
    assert (EXAMPLES / "devices-released.toml").read_text("utf-8") == f"{devices}\n{release}"


def test_every_option_that_the_page_names_exists(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert here.exists()
    ran("--help")
    command._outcome(["stage", "serve", "--help"])
    known = set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    assert set(re.findall(r"(?<!-)--[a-z][a-z-]+", PAGE)) <= known
