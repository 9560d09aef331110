"""One job, three engines: in process, on Ray, by `flwr run`. Same seed, no noise: masked sums give the same bytes."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
BIN = Path(sys.executable).parent
PACKAGES = ("privacy", "strategies", "server", "clients", "simulations")
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "COLLEGIUM_DATA": "",
    "PATH": f"{BIN}:{os.environ['PATH']}",
}
# Scaffold keeps state at the sites, mini-batches depend on the seed: what could differ between engines is in this job.
JOB = {"strategy": "scaffold", "privacy": "none", "rounds": 3, "seed": 5, "set": "batch=16 local_steps=4"}


def model_of(folder: Path) -> bytes:
    assert tomllib.loads((folder / "run.toml").read_text())["status"] == "finished"
    return (folder / "model.safetensors").read_bytes()


def simulate(home: Path, engine: str, *more: str) -> Path:
    settings = [part for pair in str(JOB["set"]).split() for part in ("--set", pair)]
    options = [part for key in ("strategy", "privacy", "rounds", "seed") for part in (f"--{key}", str(JOB[key]))]
    done = subprocess.run(
        [
            str(BIN / "collegium"),
            "simulate",
            "hospitals",
            "--engine",
            engine,
            "--out",
            engine,
            "--json",
            *options,
            *settings,
            *more,
        ],
        cwd=home,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 3
    return home / engine


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(tmp_path_factory.mktemp("local"), "local")


@pytest.mark.engine
def test_ray_gives_the_same_model(local: Path, tmp_path: Path) -> None:
    assert model_of(simulate(tmp_path, "ray")) == model_of(local)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _stop(marker: str) -> None:
    """Stops the local SuperLink, which `flwr run` leaves behind, by its pid."""
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if "flower-superlink" in command and marker in command:
            os.kill(int(entry.parent.name), signal.SIGTERM)
            time.sleep(0.1)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """A copy of the app away from the checkout, so that what runs is what the bundle holds."""
    folder = tmp_path / "app"
    for source in [ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]:
        folder.mkdir(exist_ok=True)
        (folder / source.name).write_bytes(source.read_bytes())
    for package in PACKAGES:
        for source in (ROOT / package).rglob("*"):
            if source.is_file() and "__pycache__" not in source.parts:
                target = folder / source.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read_bytes())
    port = str(_free_port())
    environment = {
        **os.environ,
        **QUIET,
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": port,
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(_free_port()),
    }
    yield folder, environment
    _stop(port)


@pytest.mark.engine
def test_flwr_run_gives_the_same_model_table_and_folder(
    local: Path, app: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    folder, environment = app
    run_config: dict[str, Any] = {**JOB, "out": str(tmp_path / "run")}
    config = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
    done = subprocess.run(
        ["flwr", "run", ".", "local", "--stream", "--federation-config", "num-supernodes=4", "--run-config", config],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "What left each site" in done.stdout
    assert model_of(tmp_path / "run") == model_of(local)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in local.iterdir()}
    verified = subprocess.run(
        [str(BIN / "collegium"), "verify", str(tmp_path / "run" / "report.html"), "--self"], check=False
    )
    assert verified.returncode == 0
