"""Unequal parts and private heads on every engine: what plain function calls give, bit for bit."""

import os
import subprocess
from pathlib import Path

import pytest
import safetensors.numpy

from clients.private_part import read_private
from simulations.job import resolve
from simulations.members import PRIVATE_FOLDER, load_member_data
from simulations.options import Options
from simulations.pieces import Pieces
from simulations.reference import federate
from strategies.models import build, layout_of
from tests.integration.test_engines import BIN, QUIET, model_of

OPTIONS = Options(
    scenario="hospitals-parts", privacy="none", rounds=3, seed=5, settings={"batch": "16", "local_steps": "4"}
)


@pytest.fixture(scope="module")
def expected() -> Pieces:
    job = resolve(OPTIONS)
    return federate(job, load_member_data(job))


@pytest.mark.soak  # in process, on the local grid, `test_divided` does the same for every `make test`
@pytest.mark.engine
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_an_engine_delivers_the_model_and_leaves_each_site_its_own_half(
    engine: str, expected: Pieces, tmp_path: Path
) -> None:
    """Seeded batches and state at the sites: what could differ between engines is in this job."""
    settings = [part for key, value in OPTIONS.settings.items() for part in ("--set", f"{key}={value}")]
    done = subprocess.run(
        [
            str(BIN / "collegium"), "simulate", OPTIONS.scenario, "--engine", engine, "--out", "run", "--json",
            "--privacy", OPTIONS.privacy, "--rounds", str(OPTIONS.rounds), "--seed", str(OPTIONS.seed), *settings,
        ],
        cwd=tmp_path,
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    job, folder = expected.job, tmp_path / "run"
    layout = layout_of(build(job.task.model, job.task.n_inputs, seed=0))
    model = safetensors.numpy.load(model_of(folder))
    assert {name: array.tobytes() for name, array in model.items()} == {
        name: array.tobytes() for name, array in layout.unflatten(expected.model).items()
    }
    assert {path.name for path in (folder / PRIVATE_FOLDER).iterdir()} == {f"{site}.safetensors" for site in job.sites}
    for site in job.sites:
        kept = read_private(folder / PRIVATE_FOLDER / f"{site}.safetensors", job.part_of(site))
        assert kept.tobytes() == expected.private[site].tobytes(), site
