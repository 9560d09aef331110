"""A simulation that cannot begin leaves nothing behind, and so can be tried again in the same place."""

from io import StringIO
from pathlib import Path

import pytest

from privacy.errors import ConfigError
from simulations.accounts import Accounts
from simulations.harness import Experiment
from simulations.job import resolve
from simulations.options import Options
from simulations.progress import PlainObserver


def test_a_preparation_that_fails_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, place = Options(scenario="hospitals", rounds=1), tmp_path / "run"
    job, observer = resolve(options), PlainObserver(StringIO())

    def prepare() -> Experiment:
        return Experiment.prepare(job, options, place, engine="local", run_id=1, observer=observer)

    def full(*_: object) -> None:
        raise ConfigError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Accounts, "prepare", full)  # keys and charter are there by then
        with pytest.raises(ConfigError, match="no space left"):
            prepare()
    assert list(tmp_path.iterdir()) == []
    assert prepare().folder.path == place
