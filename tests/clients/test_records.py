"""A site's table: encoded by hand-computed rules, record by record; damage is refused without showing values."""

import gzip
import hashlib
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.records import Records, complete_rows, encode, read_table, standardise
from privacy.errors import ConfigError
from strategies.task import Task
from strategies.task_file import parse_task

FEATURES: list[dict[str, Any]] = [
    {"name": "age", "kind": "continuous", "range": [18, 100], "centre": 55, "scale": 10, "clamp": 3},
    {"name": "chol", "kind": "continuous", "range": [60, 700], "centre": 220, "scale": 60, "missing": [0, "?"]},
    {"name": "sex", "kind": "binary"},
    {"name": "cp", "kind": "categorical", "categories": [1, 2, 3], "missing": [""]},
    {"name": "smoker", "kind": "categorical", "categories": ["no", "yes"]},
]
ROWS = ["65,250,1,1,no,0", "100,0,0,3,yes,2", "18,?,1,,no,1", "25.5,700,0,2,yes,0"]
HEADER = "age,chol,sex,cp,smoker,num"
CELL = "73.125"  # stands in broken tables where a record's value would


def task(**changes: Any) -> Task:
    document: dict[str, Any] = {
        "features": FEATURES,
        "target": {"name": "num"},
        "model": {"kind": "logistic"},
        "training": {"rounds": 1, "learning_rate": 1},
    }
    return parse_task({**document, **changes})


def table(tmp_path: Path, *rows: str, header: str = HEADER, name: str = "site.csv") -> Path:
    path = tmp_path / name
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


def test_encoding_by_hand(tmp_path: Path) -> None:
    records = encode(read_table(table(tmp_path, *ROWS)), task(), where="site.csv")
    expected = [
        # age, chol, sex, cp 2, cp 3, smoker yes
        [1.0, 0.5, 1.0, -1.0, -1.0, -1.0],
        [3.0, 0.0, -1.0, -1.0, 1.0, 1.0],  # 4.5 clamped; cholesterol 0 is not measured
        [-3.0, 0.0, 1.0, 0.0, 0.0, -1.0],  # all categories 0 where the cell is blank
        [-2.95, 3.0, -1.0, 1.0, -1.0, 1.0],
    ]
    np.testing.assert_array_equal(records.x, np.array(expected, dtype=np.float32))
    np.testing.assert_array_equal(records.y, np.array([0, 1, 1, 0], dtype=np.float32))


MANY = {"target": {"name": "num", "classes": 4}}


def test_classes_are_their_own_numbers(tmp_path: Path) -> None:
    records = encode(read_table(table(tmp_path, *ROWS)), task(**MANY), where="site.csv")
    np.testing.assert_array_equal(records.y, np.array([0, 2, 1, 0], dtype=np.float32))
    last = encode(read_table(table(tmp_path, "65,250,1,1,no,3.0")), task(**MANY), where="site.csv")
    assert last.y.tolist() == [3.0]


@pytest.mark.parametrize("label", ["4", "-1", "1.5", "1e300"])
def test_a_class_that_is_none_is_counted_and_not_shown(tmp_path: Path, label: str) -> None:
    path = table(tmp_path, *ROWS, f"65,250,1,1,no,{label}", f"18,250,1,1,no,{label}")
    with pytest.raises(ConfigError) as caught:
        encode(read_table(path), task(**MANY), where="site.csv")
    message, hint = caught.value.lines()
    assert message == "site.csv: column 'num' has no whole number from 0 to 3 in 2 of 6 rows"
    assert "\n" not in hint


@pytest.mark.parametrize(("label", "problem"), [("", "no value"), ("inf", "no number"), ("x", "no number")])
def test_a_class_is_a_number(tmp_path: Path, label: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"^site.csv: column 'num' has {problem} in 1 of 1 rows$"):
        encode(read_table(table(tmp_path, f"65,250,1,1,no,{label}")), task(**MANY), where="site.csv")


def test_own_scaling_encodes_raw_values(tmp_path: Path) -> None:
    features = [{k: v for k, v in f.items() if k in ("name", "kind", "categories")} for f in FEATURES]
    path = table(tmp_path, "65,0,1,1,no,0", "100,250,0,3,yes,2")
    records = encode(read_table(path), task(features=features, scaling="own"), where="site.csv")
    assert records.x.tolist() == [[65, 0, 1, 0, 0, 0], [100, 250, 0, 0, 1, 1]]


def test_every_kind_of_file_gives_the_same_records(tmp_path: Path) -> None:
    plain = table(tmp_path, *ROWS)
    (tmp_path / "site.csv.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "site.csv.xz").write_bytes(lzma.compress(plain.read_bytes()))
    typed = pd.DataFrame(
        {
            "age": [65, 100, 18, 25.5],
            "chol": pd.array([250, 0, 0, 700], dtype="Int64"),
            "sex": [True, False, True, False],
            "cp": [1, 3, None, 2],
            "smoker": pd.Series(["no", "yes", "no", "yes"], dtype="category"),
            "num": [0, 2, 1, 0],
            "extra": pd.to_datetime(["2020-01-01"] * 4),
        }
    )
    typed.to_parquet(tmp_path / "site.parquet")
    expected = encode(read_table(plain), task(), where="")
    for name in ("site.csv.gz", "site.csv.xz", "site.parquet"):
        found = encode(read_table(tmp_path / name), task(), where=name)
        np.testing.assert_array_equal(found.x, expected.x)
        np.testing.assert_array_equal(found.y, expected.y)


def test_excel_and_pandas_habits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    lines = [f",{HEADER}", *(f"{index}, {row}" for index, row in enumerate(ROWS)), ""]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    np.testing.assert_array_equal(
        encode(read_table(path), task(), where="").x, encode(read_table(table(tmp_path, *ROWS)), task(), where="").x
    )


def test_checksum_is_of_the_stored_file(tmp_path: Path) -> None:
    path = tmp_path / "site.csv.gz"
    path.write_bytes(gzip.compress(f"{HEADER}\n{ROWS[0]}\n".encode()))
    assert len(read_table(path, sha256=hashlib.sha256(path.read_bytes()).hexdigest())) == 1


def test_complete_rows_drops_by_own_cells_only(tmp_path: Path) -> None:
    rows = ["65,250,1,1,no,0", ",250,1,1,no,0", "65,250,1,,no,0", "65,250,1,1,no,"]
    kept = complete_rows(read_table(table(tmp_path, *rows)), task(), where="site.csv")
    assert kept.index.tolist() == [0, 2]  # cp declares a blank as missing, age and num do not


GOOD_ROW = ROWS[0]
BROKEN_ROWS = {
    "column 'age' has no value in 1 of 2 rows": ",250,1,1,no,0",
    "column 'age' has no number in 1 of 2 rows": f"x{CELL},250,1,1,no,0",
    "column 'age' has a value outside 18 to 100 in 1 of 2 rows": f"1{CELL},250,1,1,no,0",
    "column 'chol' has a value outside 60 to 700 in 1 of 2 rows": f"65,-{CELL},1,1,no,0",
    "column 'chol' has no number": "65,inf,1,1,no,0",
    "column 'sex' has neither 0 nor 1": f"65,250,{CELL},1,no,0",
    "column 'cp' has a value that is not a category": f"65,250,1,{CELL},no,0",
    "column 'smoker' has a value that is not a category": f"65,250,1,1,{CELL},0",
    "column 'smoker' has no value": "65,250,1,1,,0",
    "column 'num' has no value": "65,250,1,1,no,",
    "column 'num' has no number": f"65,250,1,1,no,x{CELL}",
    "truncated or damaged: 1 rows do not have 6 cells (see line 3)": f"65,{CELL}",
    "truncated or damaged: a quote is never closed": f'65,250,1,1,"{CELL},0',
}


@pytest.mark.parametrize("expected", BROKEN_ROWS)
def test_broken_rows_are_counted_and_not_shown(tmp_path: Path, expected: str) -> None:
    path = table(tmp_path, GOOD_ROW, BROKEN_ROWS[expected])
    refused(lambda: encode(read_table(path), task(), where=str(path)), f"{path}: {expected}")


def refused(action: Callable[[], object], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        action()
    message, *hint = caught.value.lines()
    assert message.startswith(expected)
    assert len(hint) <= 1
    assert CELL not in "".join([message, *hint])
    assert "\n" not in "".join([message, *hint])
    # Nor may the traceback of a chained error show them.
    assert caught.value.__context__ is None or caught.value.__suppress_context__


HEADERS = {
    "no column 'age'": "Age,chol,sex,cp,smoker,num",
    "no columns 'cp', 'num'": "age,chol,sex,chest,smoker,nun",
    "columns 1 and 6 have the same name": "age,chol,sex,cp,smoker,age",
    "columns 2 and 3 have the same name": f"65,{CELL},{CELL},1,no,0",  # a file without a header line
    "no columns 'age', 'chol', 'sex', 'cp', 'smoker', 'num'": f"{CELL},65,1,2,no,0",
    "the columns are not separated by commas": HEADER.replace(",", ";"),
}


@pytest.mark.parametrize("expected", HEADERS)
def test_wrong_columns(tmp_path: Path, expected: str) -> None:
    path = table(tmp_path, GOOD_ROW, header=HEADERS[expected])
    refused(lambda: encode(read_table(path), task(), where=str(path)), f"{path}: {expected}")


def test_a_near_miss_is_guessed(tmp_path: Path) -> None:
    path = table(tmp_path, GOOD_ROW, header=HEADERS["no column 'age'"])
    with pytest.raises(ConfigError) as caught:
        encode(read_table(path), task(), where="site.csv")
    assert caught.value.hint.startswith("Is 'Age' meant?")


FILES = {
    "site.csv: the file is empty": b"",
    "site.csv: not a readable CSV": b"\xff\xfe\n\xff\n",
    "site.csv.gz: truncated or damaged": gzip.compress(b"a,b\n1,2\n" * 100)[:-20],
    "site.csv.xz: truncated or damaged": lzma.compress(b"a,b\n1,2\n" * 100)[:-20],
    "site.parquet: truncated, damaged or no Parquet file": b"PAR1" + b"\0" * 20,
    "site.xls: not a kind of file that can be read": b"a",
}


@pytest.mark.parametrize("expected", FILES)
def test_damaged_files(tmp_path: Path, expected: str) -> None:
    path = tmp_path / expected.partition(":")[0]
    path.write_bytes(FILES[expected])
    refused(lambda: read_table(path), f"{tmp_path}/{expected}")


def test_text_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "site.csv"
    path.write_bytes(f"{HEADER}\n".encode() + b"65,250,1,1,\xff,0\n")
    refused(lambda: read_table(path), f"{path}: not a readable CSV")


def test_truncated_parquet(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    pd.DataFrame({"a": range(100)}).to_parquet(whole)
    path = tmp_path / "site.parquet"
    path.write_bytes(whole.read_bytes()[:-40])
    refused(lambda: read_table(path), f"{path}: truncated, damaged")


def test_absent_unreadable_altered_and_empty(tmp_path: Path) -> None:
    refused(lambda: read_table(tmp_path / "none.csv"), f"{tmp_path}/none.csv: no such file")
    refused(lambda: read_table(tmp_path), f"{tmp_path}: cannot be read: Is a directory")
    path = table(tmp_path)
    refused(lambda: read_table(path, sha256="0" * 64), f"{path}: wrong checksum")
    refused(lambda: encode(read_table(path), task(), where="site.csv"), "site.csv: no rows")


PATIENTS = ["p7", "p3", " p7", "0007"]


def with_patients(tmp_path: Path, patients: list[str]) -> Path:
    rows = [f"{row},{who}" for row, who in zip(ROWS, patients, strict=True)]
    return table(tmp_path, *rows, header=f"{HEADER},who")


def test_patients_are_numbered_as_they_appear_and_nothing_of_their_names_is_kept(tmp_path: Path) -> None:
    path = with_patients(tmp_path, PATIENTS)
    records = encode(read_table(path), task(patient="who"), where="site.csv")
    assert records.patient is not None
    assert records.patient.tolist() == [0, 1, 0, 2]
    assert records.n_units == 3
    plain = encode(read_table(path), task(), where="site.csv")
    np.testing.assert_array_equal(records.x, plain.x)
    assert (plain.patient, plain.n_units) == (None, 4)


def test_patients_of_a_parquet_file_may_be_numbers(tmp_path: Path) -> None:
    frame = read_table(with_patients(tmp_path, PATIENTS)).assign(who=[9001, 4, 9001, 4])
    frame.to_parquet(tmp_path / "site.parquet")
    records = encode(read_table(tmp_path / "site.parquet"), task(patient="who"), where="")
    assert records.patient is not None
    assert records.patient.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("kind", ["int64", "uint64", "Int64"])
def test_patients_whose_numbers_differ_in_the_last_of_many_digits_are_two(kind: str, tmp_path: Path) -> None:
    """As in a CSV: float64 has the same number for all four."""
    numbers = [75_600_000_000_000_000, 75_600_000_000_000_001, 75_600_000_000_000_002, 75_600_000_000_000_000]
    assert len(set(map(float, numbers))) < 3
    text = read_table(with_patients(tmp_path, list(map(str, numbers))))
    text.assign(who=pd.Series(numbers, dtype=kind)).to_parquet(tmp_path / "site.parquet")
    typed = read_table(tmp_path / "site.parquet")
    assert encode(text, task(patient="who"), where="").n_units == 3
    assert encode(typed, task(patient="who"), where="").n_units == 3
    typed.loc[3, "who"] = pd.NA
    typed.to_parquet(tmp_path / "site.parquet")
    kept = complete_rows(read_table(tmp_path / "site.parquet"), task(patient="who"), where="")
    assert encode(kept, task(patient="who"), where="").n_units == 3


def test_a_record_of_nobody_is_refused_or_dropped(tmp_path: Path) -> None:
    path = with_patients(tmp_path, ["p7", "", "p7", " "])
    refused(
        lambda: encode(read_table(path), task(patient="who"), where="site.csv"),
        "site.csv: column 'who' has no value in 2 of 4 rows",
    )
    kept = complete_rows(read_table(path), task(patient="who"), where="site.csv")
    assert encode(kept, task(patient="who"), where="site.csv").n_units == 1
    refused(lambda: encode(read_table(path), task(patient="name"), where="site.csv"), "site.csv: no column 'name'")


def test_units_come_whole_and_next_to_each_other() -> None:
    x = np.arange(7, dtype=np.float32)[:, None]
    patients = np.array([4, 0, 4, 2, 0, 4, 9], dtype=np.int64)
    records = Records(x, np.ones(7, np.float32), patients)
    unnamed, empty = Records(x, np.ones(7, np.float32)), records.take(np.arange(0))
    assert [each.most_of_unit for each in (records, unnamed, empty)] == [3, 1, 1]
    chosen, sizes = records.of_units(np.array([True, False, True, True]))
    assert sizes == [2, 3, 1]
    assert chosen.x.ravel().tolist() == [1, 4, 0, 2, 5, 6]
    assert chosen.patient is not None
    assert chosen.patient.tolist() == [0, 0, 4, 4, 4, 9]
    nobody, none = records.of_units(np.zeros(4, dtype=np.bool_))
    assert (len(nobody), none) == (0, [])
    some, of_records = Records(x, np.ones(7, np.float32)).of_units(x.ravel() > 4)
    assert (some.x.ravel().tolist(), of_records) == ([5, 6], None)


@pytest.mark.parametrize("patients", [np.zeros(3, np.int64), np.zeros(2, np.int32), np.zeros((2, 1), np.int64)])
def test_odd_patients_are_a_bug(patients: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ValueError, match="one patient"):
        Records(np.zeros((2, 3), np.float32), np.zeros(2, np.float32), patients)


def test_repr_shows_shapes_only() -> None:
    records = Records(np.full((2, 3), 0.73125, np.float32), np.ones(2, np.float32), np.full(2, 90210))
    assert repr(records) == "Records(x: (2, 3), y: (2,))"


@pytest.mark.parametrize(("x", "y"), [((2, 3), (3,)), ((2,), (2,)), ((2, 3), (2, 1))])
def test_records_of_odd_shapes_are_a_bug(x: tuple[int, ...], y: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="labels"):
        Records(np.zeros(x, np.float32), np.zeros(y, np.float32))


def test_standardise_agrees_with_torch() -> None:
    rng = np.random.default_rng(1)
    train, test = (Records(rng.normal(5, 3, (n, 4)).astype(np.float32), np.ones(n, np.float32)) for n in (50, 20))
    train.x[:, 2] = 7.0  # a constant input: its deviation is 0
    test.x[:, 2] = 7.0
    mean, deviation = torch.from_numpy(train.x).mean(0), torch.from_numpy(train.x).std(0)
    for scaled, part in zip(standardise(train, test), (train, test), strict=True):
        expected = (torch.from_numpy(part.x) - mean) / (deviation + 1e-9)
        np.testing.assert_allclose(scaled.x, expected.numpy(), atol=1e-5)
        assert scaled.x.dtype == np.float32
        assert scaled.y is part.y


CELLS = st.tuples(
    st.floats(18, 100).map(repr),
    st.one_of(st.sampled_from(["0", "?"]), st.floats(60, 700).map(repr)),
    st.sampled_from(["0", "1"]),
    st.sampled_from(["1", "2", "3", ""]),
    st.sampled_from(["no", "yes"]),
    st.sampled_from(["0", "1", "4"]),
)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(CELLS, min_size=1, max_size=12), data=st.data())
def test_a_row_is_encoded_by_itself(rows: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Removing or permuting other rows never changes a row's encoding: what per-record clipping rests on."""
    order = data.draw(st.permutations(range(len(rows))))
    chosen = order[: data.draw(st.integers(1, len(rows)))]
    frame = pd.DataFrame(rows, columns=HEADER.split(","))
    whole = encode(frame, task(), where="")
    part = encode(frame.iloc[chosen], task(), where="")
    np.testing.assert_array_equal(part.x, whole.x[chosen])
    np.testing.assert_array_equal(part.y, whole.y[chosen])
    assert np.abs(whole.x).max() <= 3.0
    assert set(whole.y.tolist()) <= {0.0, 1.0}
