"""The rows of each site of a scenario: from the user's own files, or the public data sets that we know by checksum.

A public data set is looked for in the data home (`COLLEGIUM_DATA`, which the caller reads), then in an installed
package, then at its owner's. Whatever is found must be exactly the file that the scenario was written for.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clients.records import Records, complete_rows, encode, read_table, standardise
from clients.split import capped, split_rows
from privacy.errors import ConfigError
from simulations.data.banks import banks_at_hand, read_banks
from simulations.data.deal import Deal, deal_rows
from simulations.data.hospitals import hospitals_at_hand, read_hospitals
from simulations.data.images import digits_at_hand, fashion_at_hand, read_digits, read_fashion
from simulations.scenario import Origin, RowRule, Scenario, SiteSource
from strategies.task import SiteId

if TYPE_CHECKING:
    import pandas as pd

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
    records = (
        _own_rows(scenario, data_home) if scenario.deal is None else _dealt_rows(scenario, scenario.deal, data_home)
    )
    return tuple(_site_data(scenario, site.id, records[site.id]) for site in scenario.sites)


def pooled_training(sites: Sequence[SiteData]) -> Records:
    """Returns the training records of all sites as one table, in the order of the sites.

    Where sites scale by their own statistics, the pooled table is scaled by its own: whoever had all rows in one place
    would do so, and FLamby does. Test records keep their site's scaling.
    """
    parts = [site.train if site.unscaled is None else site.unscaled for site in sites]
    pooled = Records(np.concatenate([part.x for part in parts]), np.concatenate([part.y for part in parts]))
    return pooled if all(site.unscaled is None for site in sites) else standardise(pooled, pooled)[0]


def site_frames(scenario: Scenario, data_home: Path | None) -> Frames:
    """Returns the rows of each site that has rows of its own, in the order of their source.

    Raises: ConfigError: Data that is not at hand, altered, or of another size than declared.
    """
    frames: dict[SiteId, pd.DataFrame] = {}
    for site, frame in zip(scenario.sites, _read(scenario, data_home), strict=True):
        for rule in site.only:
            _refuse_unknown_column(frame, rule, site.file)
        kept = _complete(frame.loc[_belongs(frame, site)], scenario, site.file)
        _check_number(kept, site.rows, f"for site {site.id!r}", site.file)
        frames[site.id] = kept
    return frames


def at_hand(scenario: Scenario, data_home: Path | None) -> str:
    """Returns where the scenario's rows would come from, or how to get them; reads and fetches nothing."""
    return _SOURCES[scenario.origin].at_hand(scenario, data_home)


def _own_rows(scenario: Scenario, data_home: Path | None) -> Mapping[SiteId, Records]:
    frames = site_frames(scenario, data_home)
    return {
        site.id: encode(frames[site.id], scenario.task, where=f"{site.file}, site {site.id!r}")
        for site in scenario.sites
    }


def _dealt_rows(scenario: Scenario, rule: Deal, data_home: Path | None) -> Mapping[SiteId, Records]:
    file = scenario.sites[0].file
    table = _complete(_read(scenario, data_home)[0], scenario, file)
    _check_number(table, scenario.table_rows, "in all", file)
    records = encode(table, scenario.task, where=file)
    owner = deal_rows(records.y.astype(np.int64), rule)
    return {site: records.take(np.flatnonzero(owner == index)) for index, site in enumerate(rule.shares)}


def _site_data(scenario: Scenario, site: SiteId, records: Records) -> SiteData:
    train_rows, test_rows = split_rows(records.y, scenario.split, where=f"site {site!r}", patients=records.patient)
    train = records.take(capped(train_rows, scenario.rows_per_site, scenario.split))
    test = records.take(test_rows)
    if scenario.scaling == "public":
        return SiteData(site, train, test)
    return SiteData(site, *standardise(train, test), unscaled=train)


def _read(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    """Returns a table for each site; the same for all where they share one."""
    if scenario.origin != "files" and data_home is not None and not data_home.is_dir():
        raise ConfigError(
            f"{data_home}: no such folder", hint="COLLEGIUM_DATA must name the folder of the data sets, or be unset."
        )
    return _SOURCES[scenario.origin].read(scenario, data_home)


def _complete(frame: "pd.DataFrame", scenario: Scenario, where: str) -> "pd.DataFrame":
    return complete_rows(frame, scenario.task, where=where) if scenario.incomplete == "drop" else frame


def _check_number(frame: "pd.DataFrame", declared: int | None, whose: str, where: str) -> None:
    if declared is not None and len(frame) != declared:
        raise ConfigError(
            f"{where}: {len(frame)} rows {whose}, the scenario declares {declared}",
            hint="The file is truncated, or another one than the scenario was written for.",
        )


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


@dataclass(frozen=True)
class _Source:
    read: Callable[[Scenario, Path | None], list[Any]]
    at_hand: Callable[[Scenario, Path | None], str]


_SOURCES: dict[Origin, _Source] = {
    "files": _Source(_read_files, _files_at_hand),
    "uci-heart-disease": _Source(read_hospitals, hospitals_at_hand),
    "uci-credit-default": _Source(read_banks, banks_at_hand),
    "sklearn-digits": _Source(read_digits, digits_at_hand),
    "fashion-mnist": _Source(read_fashion, fashion_at_hand),
}
