"""`collegium simulate` as a person meets it: results, files, refusals, interruptions."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import schemas
from privacy.store.ledger import Ledger
from simulations.engines import interruptible
from simulations.scenario import names

SITES = ("cleveland", "hungarian", "switzerland", "va")
COMMAND = str(Path(sys.executable).with_name("collegium"))


def collegium(*arguments: str, cwd: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def paid(folder: Path, site: str) -> int:
    return Ledger(folder / "ledgers" / f"{site}.db").executed(f"hospitals/{site}")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulate")


@pytest.fixture(scope="module")
def run(home: Path) -> tuple[dict[str, Any], Path]:
    """One private run with a hospital that goes wrong, so that every part of the output has something to say."""
    done = collegium("simulate", "hospitals", "--json", "--out", "run", "--set", "fault.va=raises", cwd=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), home / "run"


def test_json_fits_its_schema(run: tuple[dict[str, Any], Path]) -> None:
    result, folder = run
    schemas.check("simulate-v1", result)
    assert result["run"] == str(folder)
    assert [site["id"] for site in result["sites"]] == ["cleveland", "hungarian", "switzerland", "va"]
    assert result["protections"] == {
        "secagg": True, "record_dp": True, "site_dp": False, "distributed_dp": False, "tls": False
    }  # fmt: skip
    for site in result["sites"][:3]:
        (claim,) = site["privacy"]
        assert 0.9 < claim["epsilon"] <= 1.0
        assert site["together_without_privacy"] is not None
    assert result["sites"][3]["privacy"] == []
    assert result["egress"]["va"] == {"messages": 15, "bytes": 0, "unmasked_arrays": 0}


def test_the_run_folder_holds_what_the_contract_says(run: tuple[dict[str, Any], Path]) -> None:
    folder = run[1]
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert held == {
        "run.toml", "metrics.jsonl", "model.safetensors", "ledger.db", "log/events.jsonl",
        *(f"ledgers/{site}.db" for site in SITES),
        "transcript/charter.jsonl", "transcript/ledgers.jsonl", "transcript/secagg.jsonl",
        "report.dsse.json", "report.html", "trusted-keys.txt",
    }  # fmt: skip
    settings = tomllib.loads((folder / "run.toml").read_text())
    assert settings["status"] == "finished"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        schemas.check("metrics-v1", line)
    assert [line["round"] for line in lines] == list(range(1, 16))
    assert lines[0]["missing"] == [{"site": "va", "reason": "the ClientApp raised an exception"}]


def test_every_noisy_step_is_in_the_ledger_once(run: tuple[dict[str, Any], Path]) -> None:
    assert {site: paid(run[1], site) for site in SITES} == {
        "cleveland": 15, "hungarian": 15, "switzerland": 15, "va": 0
    }  # fmt: skip


def test_nothing_is_pickled(run: tuple[dict[str, Any], Path]) -> None:
    for path in run[1].rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith(b"\x80"), path


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--trust", "run/trusted-keys.txt"), 0), (("--self",), 0), ((), 3)],
)
def test_the_report_verifies(
    run: tuple[dict[str, Any], Path], home: Path, arguments: tuple[str, ...], code: int
) -> None:
    assert run[1].exists()
    for name in ("report.dsse.json", "report.html"):
        done = collegium("verify", f"run/{name}", *arguments, "--json", cwd=home)
        assert done.returncode == code, done.stdout
        verdict = json.loads(done.stdout)
        schemas.check("verify-v1", verdict)
        assert verdict["ok"]
        assert verdict["authentic"] == (code == 0)
    if code == 3:
        assert collegium("verify", "run/report.html", cwd=home).stdout.startswith("AUTHENTICITY NOT CHECKED")


def test_another_model_file_fails(run: tuple[dict[str, Any], Path], home: Path) -> None:
    (home / "other.safetensors").write_bytes((run[1] / "model.safetensors").read_bytes()[:-1] + b"\x00")
    done = collegium("verify", "run/report.dsse.json", "--self", "--model", "other.safetensors", cwd=home)
    assert done.returncode == 1


def test_the_page_is_drawn_again_to_the_byte(run: tuple[dict[str, Any], Path], home: Path) -> None:
    before = (run[1] / "report.html").read_bytes()
    assert collegium("report", "run", cwd=home).returncode == 0
    assert (run[1] / "report.html").read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("simulate", "nowhere"),
        ("simulate", "nowhere.toml"),
        ("simulate", "hospitals", "--epsilon", "-1"),
        ("simulate", "hospitals", "--epsilon", "lots"),
        ("simulate", "hospitals", "--rounds", "0"),
        ("simulate", "hospitals", "--rounds", "many"),
        ("simulate", "hospitals", "--out", "/proc/nowhere"),
        ("simulate", "hospitals", "--out", "occupied"),
        ("simulate", "hospitals", "--privacy", "local"),
        ("simulate", "hospitals", "--privacy", "record", "--privacy", "site"),
        ("simulate", "hospitals", "--privacy", "distributed", "--no-secagg"),
        ("simulate", "hospitals", "--privacy", "site", "--strategy", "scaffold"),
        ("simulate", "hospitals", "--privacy", "distributed", "--set", "local_steps=2"),
        ("simulate", "hospitals", "--set", "unit=site"),
        ("simulate", "hospitals", "--budget", "3"),
        ("simulate", "hospitals", "--privacy", "none", "--ledgers", "there", "--budget", "3"),
        ("simulate", "hospitals", "--engine", "spark"),
        ("simulate", "hospitals", "--engine", "ray", "--set", "fault.va=silent"),
        ("simulate", "hospitals-flamby"),
        ("simulate",),
        ("verify", "nowhere.json"),
        ("verify", "occupied"),
        ("report", "occupied"),
        ("frobnicate",),
    ],
    ids=" ".join,
)
def test_bad_input_is_a_plain_line_and_exit_2(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "file").write_text("")
    done = collegium(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("[")]
    assert 1 <= len(said) <= 2, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["occupied"]


@pytest.mark.parametrize(
    "break_it",
    ["wrong checksum", "truncated", "no folder"],
)
def test_broken_data_is_refused_before_anything_is_written(break_it: str, tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    if break_it != "no folder":
        (mirror / "hospitals").mkdir(parents=True)
        for name in ("cleveland", "hungarian", "switzerland", "va"):
            text = "63.0,1.0,1.0,145.0,233.0,1.0,2.0,150.0,0.0,2.3,3.0,0.0,6.0,0\n"
            (mirror / "hospitals" / f"processed.{name}.data").write_text(text[:20] if break_it == "truncated" else text)
    done = collegium("simulate", "hospitals", "--out", "run", cwd=tmp_path, COLLEGIUM_DATA=str(mirror))
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_banks_without_its_data_says_how_to_get_it(tmp_path: Path) -> None:
    done = collegium("simulate", "banks", cwd=tmp_path, COLLEGIUM_DATA="")
    assert done.returncode == 2
    assert "COLLEGIUM_DATA" in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("masks", "steps"), [("--no-secagg", 17), ("--secagg", 0)])
def test_too_few_survivors_stop_with_4_and_keep_the_ledger(masks: str, steps: int, tmp_path: Path) -> None:
    """In the clear the updates had left and are paid for; under masks the attempts ended before anything could."""
    faults = ("--set", "fault.va=raises", "--set", "fault.cleveland=raises")
    done = collegium("simulate", "hospitals", "--out", "run", masks, *faults, cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "no model was made" in done.stderr
    assert tomllib.loads((tmp_path / "run" / "run.toml").read_text())["status"] == "stopped"
    assert paid(tmp_path / "run", "hungarian") == steps
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("silent", "no answer within 3 s"), ("late:4", "no answer within 3 s"), ("nan", "without va: ADV")],
)
def test_one_hospital_that_goes_wrong_does_not_stop_the_others(fault: str, reason: str, tmp_path: Path) -> None:
    settings = ("--set", f"fault.va={fault}", "--set", "deadline=3", "--rounds", "3")
    done = collegium("simulate", "hospitals", "--privacy", "none", "--out", "run", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert reason in done.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["answered"] for line in lines] == [["cleveland", "hungarian", "switzerland"]] * 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_so_and_keeps_what_was_spent(number: signal.Signals, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [COMMAND, "simulate", "hospitals", "--rounds", "600", "--out", "run"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    assert process.stderr is not None
    while "round" not in process.stderr.readline():
        pass
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "interrupted; what was done and spent so far is kept"
    status = tomllib.loads((tmp_path / "run" / "run.toml").read_text())
    assert status["status"] == "interrupted"
    spent = paid(tmp_path / "run", "va")
    assert spent >= 1
    assert status["spent-va-record"]["executions"] <= spent


def test_an_interrupt_that_something_swallowed_comes_again_at_the_next_wait() -> None:
    before = signal.getsignal(signal.SIGINT)
    with interruptible() as sleep:
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            sleep(0.0)
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_phones_home(tmp_path: Path) -> None:
    """Flower reads its switch when it is imported; the command must set it before."""
    program = (
        "import sys\n"
        "from privacy.command import main\n"
        "try: main(['simulate', 'hospitals', '--rounds', '0'])\n"
        "except SystemExit: pass\n"
        "import os, flwr.supercore.telemetry as telemetry\n"
        "assert telemetry.FLWR_TELEMETRY_ENABLED == '0'\n"
        "assert os.environ['RAY_USAGE_STATS_ENABLED'] == '0'\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("FLWR", "RAY"))}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_example_of_the_how_to_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "own-data" / "clinics.toml"
    done = collegium("simulate", str(example), "--json", "--out", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["sites"]) == 3


@pytest.mark.parametrize("privacy", ["record", "distributed"])
def test_patients_are_the_unit_where_own_data_names_them(privacy: str, tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "docs" / "examples" / "own-data"
    for table in example.glob("*.csv"):
        head, *rows = table.read_text().splitlines()
        named = [f"p{place // 2},{row}" for place, row in enumerate(rows)]  # two records each
        (tmp_path / table.name).write_text("\n".join([f"who,{head}", *named]) + "\n")
    settings = (example / "clinics.toml").read_text()
    (tmp_path / "clinics.toml").write_text(f'patient = "who"\n{settings}')
    one_step = ("--set", "local_steps=1", "--set", "batch=0")
    options = ("--privacy", privacy, *one_step, "--rounds", "2", "--json", "--out", "run")
    done = collegium("simulate", "clinics.toml", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {claim["unit"] for site in json.loads(done.stdout)["sites"] for claim in site["privacy"]} == {"patient"}
    assert collegium("verify", "run/report.html", "--self", cwd=tmp_path).returncode == 0


def test_the_overview_lists_every_command_without_loading_torch(tmp_path: Path) -> None:
    done = collegium("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in ("simulate", "scenarios", "verify", "report"):
        assert name in done.stdout


def test_scenarios_lists_what_is_at_hand(tmp_path: Path) -> None:
    done = collegium("scenarios", "--json", cwd=tmp_path)
    listed = {one["name"]: one for one in json.loads(done.stdout)["scenarios"]}
    assert set(listed) == set(names())
    assert listed["hospitals"]["sites"] == 4
