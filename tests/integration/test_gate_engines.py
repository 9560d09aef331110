"""A strategy that the charter does not list is refused on Ray and in `flwr run` as in one process (`make soak`)."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_engines import BIN, QUIET, app  # noqa: F401 - a fixture is found by its name
from tests.simulations.test_demo_charter import CHARTERED

WHY = "the charter forbids this (strategy): strategy 'scaffold' is not listed, only fedavg, fedprox"
JOB: dict[str, Any] = {"strategy": "scaffold", "privacy": "none", "rounds": 1}


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "chartered.toml"
    path.write_text(CHARTERED)
    return path


def nothing_was_made(folder: Path) -> None:
    assert 'status = "stopped"' in (folder / "run.toml").read_text()
    assert not (folder / "model.safetensors").exists()


@pytest.mark.engine
@pytest.mark.soak
def test_ray_refuses(scenario: Path, tmp_path: Path) -> None:
    options = [part for key, value in JOB.items() for part in (f"--{key}", str(value))]
    done = subprocess.run(
        [str(BIN / "collegium"), "simulate", str(scenario), "--engine", "ray", "--out", "run", *options],
        cwd=tmp_path, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode != 0
    assert WHY in done.stderr
    nothing_was_made(tmp_path / "run")


@pytest.mark.engine
@pytest.mark.soak
def test_flwr_run_refuses(scenario: Path, app: tuple[Path, dict[str, str]], tmp_path: Path) -> None:  # noqa: F811 - as above
    folder, environment = app
    run_config = {**JOB, "scenario": str(scenario), "out": str(tmp_path / "run")}
    config = " ".join(f"{key}={json.dumps(value)}" for key, value in run_config.items())
    done = subprocess.run(
        ["flwr", "run", ".", "local", "--stream", "--federation-config", "num-supernodes=4", "--run-config", config],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert WHY in done.stdout + done.stderr
    nothing_was_made(tmp_path / "run")
