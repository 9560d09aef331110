"""A site's data as its ``site.toml`` names it: read, without those who opted out, encoded, split.

Whoever is on the opt-out list leaves before anything is computed from the table. The list is read again before every
round: a plan is priced for a fixed number of units, so a site takes no further part in a run once somebody in it opts
out, and prices the next run without them.

Messages have file, column and numbers of rows, never a value of a record.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.records import Records, complete_rows, encode, read_table, standardise
from clients.split import Split, capped, split_rows
from privacy.errors import ConfigError, PrivacyError
from privacy.store.run_folder import read_file
from privacy.store.site_settings import AssetSettings
from strategies.task import Task

if TYPE_CHECKING:
    import pandas as pd

_HINT = "The keys of [asset.NAME] in site.toml: docs/how-to-site.md."
_LARGEST_LIST = 2**26  # bytes


@dataclass(frozen=True, eq=False)
class Loaded:
    """An asset's records, ready to train on; secret, but for the numbers.

    Attributes:
      train: What trains.
      test: What is kept back to score models at the site.
      n_rows: Rows of the table.
      opted_out: How many of them were left out because of the opt-out list.
      unmatched: How many entries of the list are nobody in the table.
      several: How many rows belong to a patient with more than one, where the file tells patients apart.
    """

    train: Records
    test: Records
    n_rows: int
    opted_out: int
    unmatched: int
    several: int
    _asset: AssetSettings = field(repr=False)
    _by_row: bool
    _present: frozenset[str] = field(repr=False)

    def refuse_opted_out(self) -> None:
        """Reads the opt-out list again; to be called before every round.

        Raises:
          PrivacyError: Somebody whose records are in here opted out since: they train no more.
          ConfigError: The list cannot be read or applied.
        """
        listed = _opted_out(self._asset)
        if self._by_row:
            _check_rows(listed, self._asset, self.n_rows)
        since = len(self._present & listed)
        if since:
            raise PrivacyError(
                f"{since} opted out of {self._asset.name} since its records were read: no further part in this run",
                hint="The next run is priced and trained without them; nothing else needs to be done.",
            )


def load(asset: AssetSettings, task: Task, *, priced: int | None = None) -> Loaded:
    """Reads an asset, checks it against the study and splits it; the same files always give the same records.

    Args:
      asset: Which file, and who is left out.
      task: What the study makes of the columns. Public.
      priced: Number of training units that a run's plan was priced for; ``None``: no plan yet.

    Raises:
      ConfigError: A file is unreadable, or something in it is not as declared.
      PrivacyError: The number of training units is not ``priced``.
    """
    where = str(asset.path)
    frame = _renamed(read_table(asset.path), asset, task, where)
    listed = _opted_out(asset)
    names = _names(frame, asset, task, where)
    by_row = not (task.patient or asset.patient)
    if by_row:
        _check_rows(listed, asset, len(frame))
    _check_patients(listed, names, asset)
    stays = np.array([name not in listed for name in names], dtype=np.bool_)
    kept = frame.loc[stays]
    if asset.incomplete == "drop":
        kept = complete_rows(kept, task, where=where)
    records = encode(kept, task, where=where)
    split = Split(test=asset.test, seed=asset.seed)
    train_rows, test_rows = split_rows(records.y, split, where=where, patients=records.patient)
    train, test = records.take(capped(train_rows, asset.rows, split)), records.take(test_rows)
    if task.scaling == "own":
        train, test = standardise(train, test)
    loaded = Loaded(
        train=train,
        test=test,
        n_rows=len(frame),
        opted_out=int(np.count_nonzero(~stays)),
        unmatched=len(listed.difference(names)),
        several=_several(names),
        _asset=asset,
        _by_row=by_row,
        _present=frozenset(name for name, there in zip(names, stays, strict=True) if there),
    )
    _check_priced(loaded, priced)
    return loaded


def _check_priced(loaded: Loaded, priced: int | None) -> None:
    n_units = loaded.train.n_units
    if priced is None or n_units == priced:
        return
    fewer = n_units < priced and loaded.opted_out > 0
    why = f"{loaded.opted_out} rows are left out by the opt-out list" if fewer else "the table or its settings changed"
    raise PrivacyError(
        f"{n_units} units would train and the plan is priced for {priced}: {why}",
        hint="No further part in this run; the next one is priced for what is there.",
    )


def _renamed(frame: "pd.DataFrame", asset: AssetSettings, task: Task, where: str) -> "pd.DataFrame":
    """Gives columns the names that the study has for them."""
    wanted = {*(feature.name for feature in task.features), task.target.name, *([task.patient] if task.patient else [])}
    columns = dict(asset.columns)
    if task.patient and asset.patient:
        columns.setdefault(task.patient, asset.patient)
    for name, column in columns.items():
        if name not in wanted:
            raise ConfigError(f"asset {asset.name}: the study has no column {name!r}", hint=_HINT)
        if column not in frame.columns:
            raise ConfigError(f"{where}: no column {column!r}, which site.toml names for {name!r}", hint=_HINT)
    if asset.patient and columns.get(task.patient, asset.patient) != asset.patient:
        raise ConfigError(f"asset {asset.name}: patient and columns name different columns for patients", hint=_HINT)
    # A column of the study's name that is not meant would be there twice.
    hidden = [name for name in columns if name in frame.columns and name not in columns.values()]
    return frame.drop(columns=hidden).rename(columns={column: name for name, column in columns.items()})


def _names(frame: "pd.DataFrame", asset: AssetSettings, task: Task, where: str) -> list[str]:
    """Names each row's patient as the opt-out list does, or the row by its number from 1; a blank is empty. Secret."""
    column = task.patient or asset.patient
    if not column:
        return [str(number) for number in range(1, len(frame) + 1)]
    if column not in frame.columns:
        raise ConfigError(f"{where}: no column {column!r}, which is to tell patients apart", hint=_HINT)
    cells = frame[column]
    return ["" if blank else _name(cell) for cell, blank in zip(cells.tolist(), cells.isna(), strict=True)]


def _name(cell: object) -> str:
    if isinstance(cell, float) and cell.is_integer():  # 7 and 7.0 are one patient, as they are in the records
        return str(int(cell))
    return str(cell).strip()


def _several(names: list[str]) -> int:
    return sum(count for count in Counter(names).values() if count > 1)


def _opted_out(asset: AssetSettings) -> frozenset[str]:
    """Reads the list: an entry a line; blank lines and what follows ``#`` at the start of a line are skipped."""
    return frozenset() if asset.opt_out is None else _entries(asset.opt_out)


def _entries(path: Path) -> frozenset[str]:
    try:
        lines = read_file(path, limit=_LARGEST_LIST).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text in UTF-8") from None
    return frozenset(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))


def _check_rows(listed: frozenset[str], asset: AssetSettings, n_rows: int) -> None:
    """Refuses a list with an entry that is no row: whoever it means would train."""
    wrong = listed.difference(map(str, range(1, n_rows + 1)))
    if wrong:
        raise ConfigError(
            f"{asset.opt_out}: {len(wrong)} of {len(listed)} entries are no numbers of rows, 1 to {n_rows}",
            hint="With patient = COLUMN in site.toml, entries are values of that column.",
        )


def _check_patients(listed: frozenset[str], names: list[str], asset: AssetSettings) -> None:
    """Refuses rows that could be anybody's on the list."""
    if listed and "" in names:
        raise ConfigError(
            f"{asset.path}: {names.count('')} of {len(names)} rows name no patient, so whether they opted out is "
            "unknown",
            hint="Fill them in, or take these rows out of the table.",
        )
