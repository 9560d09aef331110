"""A site's own table: read, checked against the task, and turned into arrays. Nothing here leaves the site.

Under ``scaling = "public"`` the encoding of a row is a function of that row and of public constants alone; per-record
clipping bounds what one record can do only because of that. `standardise` is the exception and says so.

Messages name file, column and number of rows, never a value of a record.
"""

import csv
import difflib
import hashlib
import io
import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from gzip import BadGzipFile
from gzip import decompress as gunzip
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError
from strategies.task import Feature, Target, Task

if TYPE_CHECKING:
    import pandas as pd

_HINT_ROWS = "Correct these rows, or declare a wider range or a missing code: docs/how-to-own-data.md."

_Cells = npt.NDArray[np.float64]
_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Records:
    """Encoded records of one site. Secret; ``repr`` shows shapes only.

    Attributes:
      x: Inputs, shape ``(n, n_inputs)``, float32.
      y: Labels: 0 or 1, or the number of the class; shape ``(n,)``, float32.
      patient: A number per patient, shape ``(n,)``, int64; ``None``: every record is a patient of its own.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.float32]
    patient: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"{self.x.shape} inputs do not go with {self.y.shape} labels")
        if self.x.dtype != np.float32 or self.y.dtype != np.float32:
            raise ValueError("records are float32")
        if self.patient is not None and (self.patient.shape != self.y.shape or self.patient.dtype != np.int64):
            raise ValueError("every record has one patient, by an int64 number")

    def __repr__(self) -> str:
        return f"Records(x: {self.x.shape}, y: {self.y.shape})"

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: npt.NDArray[np.int64]) -> "Records":
        """Returns some of the records, in the order of ``rows``, shape ``(b,)``."""
        return Records(self.x[rows], self.y[rows], None if self.patient is None else self.patient[rows])

    @property
    def n_units(self) -> int:
        """Number of patients where the records name one, else of records: what privacy counts and protects."""
        return len(self) if self._by_patient is None else len(self._by_patient[1])

    @property
    def most_of_unit(self) -> int:
        """Largest number of records of one unit; at least 1. Secret."""
        return 1 if self._by_patient is None else int(self._by_patient[1].max(initial=1))

    def of_units(self, chosen: npt.NDArray[np.bool_]) -> tuple["Records", list[int] | None]:
        """Returns all records of the chosen units, those of a patient next to each other.

        Args:
          chosen: Shape ``(n_units,)``; patients in the order of their numbers, or records in their own. Secret.

        Returns: The records, and how many each chosen patient has (``None``: no patients are named).
        """
        if self._by_patient is None:
            return self.take(np.flatnonzero(chosen)), None
        order, sizes = self._by_patient
        return self.take(order[np.repeat(chosen, sizes)]), sizes[chosen].tolist()

    @cached_property
    def _by_patient(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
        """Rows in the order of their patients' numbers, and how many rows each patient has."""
        if self.patient is None:
            return None
        sizes = np.unique(self.patient, return_counts=True)[1]
        return np.argsort(self.patient, kind="stable"), sizes


def read_table(path: Path, *, sha256: str | None = None, columns: Sequence[str] = ()) -> "pd.DataFrame":
    """Reads one CSV (plain, ``.gz`` or ``.xz``) or Parquet file.

    Cells of a CSV stay text: what a blank, a ``?`` or ``NA`` means is the task's to say. The checksum is taken of the
    same bytes that are parsed.

    Args:
      path: The file.
      sha256: Expected digest of the file as it is stored, in hex; ``None``: not checked.
      columns: Names for a CSV without a header line.

    Raises: ConfigError: Unreadable, truncated, altered, or no table with different column names.
    """
    data = _read_bytes(path)
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256.lower():
        raise ConfigError(f"{path}: wrong checksum", hint="The file is not the one that was declared: fetch it again.")
    if not data:
        raise ConfigError(f"{path}: the file is empty")
    if path.suffix == ".parquet":
        return _parquet(data, path)
    if "".join(path.suffixes[-2:]).lower().endswith((".csv", ".csv.gz", ".csv.xz", ".data")):
        return _csv(_decompressed(data, path), path, list(columns))
    raise ConfigError(f"{path}: not a kind of file that can be read", hint="Give .csv, .csv.gz, .csv.xz or .parquet.")


def complete_rows(frame: "pd.DataFrame", task: Task, *, where: str) -> "pd.DataFrame":
    """Drops the rows with a blank in a column that the task uses and that declares no blank as missing.

    A row stays or goes by its own cells alone. Record-level privacy is about the rows that stay.

    Args:
      frame: The site's table. Secret.
      task: Names the columns.
      where: Name of the file, for messages.

    Raises: ConfigError: A column is not there.
    """
    _check_columns(frame, task, where, [task.target.name, *_patient_column(task)])
    needed = [feature.name for feature in task.features if "" not in feature.missing]
    blank = [_Column(frame[name]).blank for name in [*needed, task.target.name, *_patient_column(task)]]
    kept: pd.DataFrame = frame.loc[~np.any(blank, axis=0)]
    return kept


def encode(frame: "pd.DataFrame", task: Task, *, where: str) -> Records:
    """Encodes a site's table, row by row.

    Guarantees, under ``scaling = "public"``: row ``i`` of ``x`` and ``y`` depends on row ``i`` of the table and on
    ``task`` only; inputs lie in ``[-clamp, clamp]``. Under ``scaling = "own"`` values are as they are, categories 0
    or 1.

    Args:
      frame: At least one row; columns the task does not name are ignored. Secret.
      task: Features and target. Public.
      where: Name of the file, for messages.

    Raises: ConfigError: Something in the table is not as declared; the message has no value of a record.
    """
    if not len(frame):
        raise ConfigError(f"{where}: no rows", hint="A site needs at least a few records to train on.")
    _check_columns(frame, task, where, [task.target.name, *_patient_column(task)])
    labels = _labels(_Column(frame[task.target.name]), task.target, where)
    patients = [_patient_numbers(_Column(frame[name]), name, where) for name in _patient_column(task)]
    return Records(encode_inputs(frame, task, where=where), labels.astype(np.float32), *patients)


def encode_inputs(frame: "pd.DataFrame", task: Task, *, where: str) -> npt.NDArray[np.float32]:
    """Encodes a table's features alone, as `encode` does; it need not have labels. Shape ``(n, n_inputs)``.

    Raises: ConfigError: As ``encode``.
    """
    _check_columns(frame, task, where)
    inputs = [_encode_feature(_Column(frame[feature.name]), feature, task, where) for feature in task.features]
    return np.concatenate(inputs, axis=1).astype(np.float32)


def standardise(train: Records, test: Records) -> tuple[Records, Records]:
    """Scales each input by mean and deviation (n - 1) of the training records.

    NOT a function of one record: any record moves all others, so this never goes with record-level privacy. It is
    what FLamby does for Heart Disease, 1e-9 added to each deviation included.

    Args:
      train: At least two records. Secret.
      test: Scaled by the statistics of ``train``.

    Raises: ConfigError: Fewer than two training records.
    """
    if len(train) < 2:
        raise ConfigError("own scaling needs at least two training records", hint="Use public scaling instead.")
    centre = train.x.mean(axis=0, dtype=np.float64)
    deviation = train.x.std(axis=0, dtype=np.float64, ddof=1) + 1e-9
    scaled = [replace(part, x=((part.x - centre) / deviation).astype(np.float32)) for part in (train, test)]
    return scaled[0], scaled[1]


class _Column:
    """One column as numbers and, if it was stored as text, as text too."""

    stored: "pd.Series[Any]"
    numbers: _Cells  # NaN: not a number; whole numbers above 2^53 are rounded
    text: npt.NDArray[np.object_] | None  # stripped
    blank: _Flags

    def __init__(self, series: "pd.Series[Any]") -> None:
        import pandas as pd  # noqa: PLC0415 - half a second that `collegium --help` need not spend

        self.stored = series
        if pd.api.types.is_bool_dtype(series.dtype) or pd.api.types.is_numeric_dtype(series.dtype):
            self.text = None
            self.numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
            self.blank = np.isnan(self.numbers)
            return
        cells = series.astype(object)
        stripped = cells.astype(str).str.strip().where(cells.notna(), "")
        self.text = stripped.to_numpy(dtype=object)
        self.numbers = pd.to_numeric(stripped, errors="coerce").to_numpy(dtype=np.float64)
        self.blank = np.asarray(self.text == "", dtype=np.bool_)

    def equals(self, value: float | str) -> _Flags:
        """Whether each cell is this number or this text; the empty text is a blank cell."""
        if value == "":
            return self.blank
        if isinstance(value, str):
            cells: npt.ArrayLike = self.text == value if self.text is not None else np.zeros(self.numbers.shape)
            return np.asarray(cells, dtype=np.bool_)
        return np.asarray(self.numbers == value)

    def among(self, values: Sequence[float | str]) -> _Flags:
        """Whether each cell is one of these."""
        return np.asarray(np.any([self.equals(value) for value in values], axis=0), dtype=np.bool_)


def _encode_feature(column: _Column, feature: Feature, task: Task, where: str) -> _Cells:
    """Returns a feature's inputs, shape ``(n, width)``."""
    missing = column.among(feature.missing) if feature.missing else np.zeros(column.blank.shape, np.bool_)
    _refuse_rows(column.blank & ~missing, "no value", feature.name, where)
    known = ~missing
    if feature.kind == "categorical":
        _refuse_rows(known & ~column.among(feature.categories), "a value that is not a category", feature.name, where)
        flags = np.stack([column.equals(category) for category in feature.categories[1:]], axis=1)
        values = flags.astype(np.float64) if task.scaling == "own" else np.where(flags, 1.0, -1.0)
        return np.where(known[:, None], values, 0.0)
    _refuse_rows(known & ~np.isfinite(column.numbers), "no number", feature.name, where)
    numbers = np.where(known, column.numbers, 0.0)
    if feature.kind == "binary":
        _refuse_rows(known & ~column.among((0.0, 1.0)), "neither 0 nor 1", feature.name, where)
        values = numbers if task.scaling == "own" else 2.0 * numbers - 1.0
    else:
        outside = known & ((numbers < feature.low) | (numbers > feature.high))
        _refuse_rows(outside, f"a value outside {feature.low:g} to {feature.high:g}", feature.name, where)
        values = np.clip((numbers - feature.centre) / feature.scale, -feature.clamp, feature.clamp)
    return np.where(known, values, 0.0)[:, None]


def _labels(column: _Column, target: Target, where: str) -> _Cells:
    _refuse_rows(column.blank, "no value", target.name, where)
    _refuse_rows(~np.isfinite(column.numbers), "no number", target.name, where)
    if target.classes > 2:
        foreign = ~column.among(range(target.classes))
        _refuse_rows(foreign, f"no whole number from 0 to {target.classes - 1}", target.name, where)
        return column.numbers
    return (column.numbers > target.threshold).astype(np.float64)


def _patient_column(task: Task) -> list[str]:
    return [task.patient] if task.patient else []


def _patient_numbers(column: _Column, name: str, where: str) -> npt.NDArray[np.int64]:
    """Returns 0, 1, … in the order in which patients first appear: nothing of the values is kept."""
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where patients are named

    _refuse_rows(column.blank, "no value", name, where)
    codes, _ = pd.factorize(column.stored if column.text is None else column.text)
    return np.asarray(codes, dtype=np.int64)


def _refuse_rows(bad: _Flags, problem: str, column: str, where: str) -> None:
    n_bad = int(np.count_nonzero(bad))
    if n_bad:
        raise ConfigError(f"{where}: column {column!r} has {problem} in {n_bad} of {len(bad)} rows", hint=_HINT_ROWS)


def _check_columns(frame: "pd.DataFrame", task: Task, where: str, beside: Sequence[str] = ()) -> None:
    """Refuses a table without the task's features and the columns ``beside`` them."""
    present = [str(name) for name in frame.columns]
    _refuse_double_columns(present, where)
    wanted = [*(feature.name for feature in task.features), *beside]
    lacking = [name for name in wanted if name not in present]
    if not lacking:
        return
    # A file without a header line has a record in its place: only what is all but the declared name is repeated.
    near = [
        name for name in present if difflib.SequenceMatcher(None, name.casefold(), lacking[0].casefold()).ratio() > 0.8
    ]
    raise ConfigError(
        f"{where}: no column{'s' * (len(lacking) > 1)} {', '.join(map(repr, lacking))}",
        hint=f"Is {near[0]!r} meant? Names must match exactly."
        if near
        else f"The first line must name the columns; it has {len(present)} cells.",
    )


def _refuse_double_columns(names: Sequence[str], where: str | Path) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            # By number, not by name: see `_check_columns` on files without a header line.
            raise ConfigError(
                f"{where}: columns {names.index(name) + 1} and {index + 1} have the same name",
                hint="The first line must name every column, each differently.",
            )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="Paths in a scenario are relative to the scenario.") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


def _decompressed(data: bytes, path: Path) -> bytes:
    try:
        if path.suffix == ".xz":
            return lzma.decompress(data)
        return gunzip(data) if path.suffix == ".gz" else data
    except (lzma.LZMAError, zlib.error, EOFError, BadGzipFile):
        raise ConfigError(f"{path}: truncated or damaged", hint="Fetch or write the file again.") from None


def _csv(data: bytes, path: Path, columns: list[str]) -> "pd.DataFrame":
    import pyarrow as pa  # noqa: PLC0415 - a heavy import, only where a file is read
    from pyarrow import csv as arrow_csv  # noqa: PLC0415 - same

    names = columns or _header(data, path)
    uneven: list[int | None] = []

    def note(row: Any) -> str:
        uneven.append(row.number)
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.BufferReader(data),
            # One thread: only then does Arrow number the lines that it skips.
            read_options=arrow_csv.ReadOptions(column_names=names, skip_rows=0 if columns else 1, use_threads=False),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:
        # Arrow's message quotes the row, so it is not passed on.
        raise ConfigError(f"{path}: not a readable CSV", hint="Save it as comma-separated text in UTF-8.") from None
    if data.count(b'"') % 2:
        raise ConfigError(f"{path}: truncated or damaged: a quote is never closed", hint="Write the file again.")
    if uneven:
        raise ConfigError(
            f"{path}: truncated or damaged: {len(uneven)} rows do not have {len(names)} cells (see line {uneven[0]})",
            hint="Write the file again; every row needs as many cells as there are columns.",
        )
    frame: pd.DataFrame = table.to_pandas()
    return frame


def _header(data: bytes, path: Path) -> list[str]:
    line = data.split(b"\n", 1)[0]
    try:
        names = [name.strip() for name in next(csv.reader(io.StringIO(line.decode("utf-8-sig"))), [])]
    except (UnicodeDecodeError, csv.Error):
        raise ConfigError(f"{path}: not a readable CSV", hint="Save it as comma-separated text in UTF-8.") from None
    if len(names) == 1 and any(separator in names[0] for separator in ";\t|"):
        raise ConfigError(f"{path}: the columns are not separated by commas", hint="Save it with commas between cells.")
    _refuse_double_columns(names, path)
    return names


def _parquet(data: bytes, path: Path) -> "pd.DataFrame":
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where a file is read
    import pyarrow as pa  # noqa: PLC0415 - same
    from pyarrow import parquet  # noqa: PLC0415 - same

    # By itself a column of whole numbers with blanks becomes float64, which makes one patient of two above 2^53.
    whole = {pa.int64(): pd.Int64Dtype(), pa.uint64(): pd.UInt64Dtype()}

    try:
        table = parquet.read_table(pa.BufferReader(data))
        frame: pd.DataFrame = table.to_pandas(types_mapper=whole.get)
    except (pa.ArrowException, OSError):
        raise ConfigError(f"{path}: truncated, damaged or no Parquet file", hint="Write the file again.") from None
    _refuse_double_columns(table.column_names, path)
    return frame
