"""Exported tables give real sites exactly the records of the simulation."""

from pathlib import Path

import numpy as np
import pytest

from clients.assets import load as load_asset
from privacy.errors import ConfigError
from privacy.store.site_settings import read_site_settings
from simulations import export as exporting
from simulations.data.datasets import load_sites
from simulations.export import export
from simulations.scenario import load
from strategies.study import read_study

ROOT = Path(__file__).parent.parent.parent
CLINICS = str(ROOT / "docs/examples/own-data/clinics.toml")


@pytest.mark.parametrize("name", ["hospitals", "hospitals-flamby", "hospitals-parts", CLINICS])
def test_a_site_has_bit_for_bit_what_the_simulation_gives_it(name: str, tmp_path: Path) -> None:
    done = export(name, tmp_path / "out", None)
    scenario = load(name)
    study = read_study(done.study.read_text(), where="study.toml")
    assert study.digest == scenario.study.digest
    for site in load_sites(scenario, None):
        settings = {"path": str(done.tables[site.id]), "sensitivity": "health", **done.settings}
        lines = [f"{key} = {value!r}" for key, value in settings.items()]
        text = "\n".join(['server = "https://x:1"', "[asset.rows]", 'purposes = ["training"]', *lines])
        loaded = load_asset(read_site_settings(text, tmp_path).assets["rows"], study.task)
        for ours, theirs in ((loaded.train, site.train), (loaded.test, site.test)):
            assert ours.x.tobytes() == theirs.x.tobytes()
            assert ours.y.tobytes() == theirs.y.tobytes()
            assert (ours.patient is None) == (theirs.patient is None)


def test_others_cannot_read_the_tables(tmp_path: Path) -> None:
    done = export("hospitals", tmp_path / "out", None)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "study.toml",
        *(f"{site}.csv" for site in done.tables),
    }
    assert done.tables["cleveland"].read_text().startswith("age,sex,cp,trestbps,")  # type: ignore[index]
    with pytest.raises(ConfigError, match="not an empty folder"):
        export("hospitals", tmp_path / "out", None)


def test_a_dealt_table_is_nobodys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="deals one table"):
        export("digits", tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_a_table_that_would_change_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = exporting._csv
    monkeypatch.setattr(exporting, "_csv", lambda frame: real(frame).replace(b"63.0", b"64.0"))
    with pytest.raises(ConfigError, match="without a change"):
        export("hospitals", tmp_path / "out", None)
    assert not (tmp_path / "out").exists()


def test_records_are_compared_with_patients_and_all() -> None:
    records = load_sites(load("hospitals"), None)[0].train
    named = type(records)(records.x, records.y, np.arange(len(records)))
    assert exporting._same(records, records)
    assert not exporting._same(records, named)
    assert exporting._same(named, named)
