"""UCI 350, credit default: ten banks made from one table by public rules."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clients.records import read_table
from privacy.errors import ConfigError
from simulations.data.public import in_data_home, numbers
from simulations.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

_UCI_CREDIT = "https://archive.ics.uci.edu/dataset/350"
_BANK_CSV = "UCI_Credit_Card.csv"


def read_banks(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    """Returns the one table for each bank. Raises: ConfigError: It is not at hand or not the declared one."""
    path = _bank_file(scenario, data_home)
    if path is None:
        raise ConfigError("the data of 'banks' is not at hand", hint=banks_at_hand(scenario, data_home))
    # Only the file with a published digest has one to check; a spreadsheet saved as CSV differs from writer to writer.
    # The declared number of rows of each bank guards that one.
    site = scenario.sites[0]
    sha256 = site.sha256 if path.name == Path(site.file).name else None
    return [_credit_table(read_table(path, sha256=sha256), path)] * len(scenario.sites)


def banks_at_hand(scenario: Scenario, data_home: Path | None) -> str:
    """Returns where the table would come from, or how to get it; reads and fetches nothing."""
    if _bank_file(scenario, data_home) is not None:
        return f"at hand in {data_home}"
    place = f"{data_home or 'a folder named in COLLEGIUM_DATA'}"
    return (
        f"Download {_UCI_CREDIT}, save the sheet as CSV with its columns LIMIT_BAL to PAY_AMT6 and 'default payment"
        f" next month', as banks/{_BANK_CSV} in {place}."
    )


def _bank_file(scenario: Scenario, data_home: Path | None) -> Path | None:
    home = in_data_home(scenario, data_home)
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
    cells = numbers(rows.set_axis(names, axis="columns"), names)
    if "EDUCATION" in cells.columns:
        return cells
    for name in ("EDUCATION", "MARRIAGE"):
        codes = [column for column in cells.columns if column.startswith(f"{name}_")]
        if not codes or not (cells[codes].sum(axis=1) == 1).all():
            raise ConfigError(f"{path}: no column {name!r}", hint=f"See {_UCI_CREDIT} for the columns.")
        cells[name] = cells[codes].to_numpy().argmax(axis=1)
        cells[name] = np.array([float(code.removeprefix(f"{name}_")) for code in codes])[cells[name]]
    return cells.assign(SEX=cells.get("SEX", np.nan) + 1)
