"""A site's data by its own settings: whoever opted out is in nothing, and the same files give the same records."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clients.assets import Loaded, load
from clients.records import encode, read_table
from clients.split import Split, split_rows
from privacy.errors import ConfigError, PrivacyError
from privacy.store.site_settings import AssetSettings, read_site_settings
from strategies.study import read_study
from strategies.task import Task
from tests.privacy.store.joined import SITE_TOML, STUDY, table

TASK = read_study(STUDY, where="study.toml").task
VISITS = read_study(STUDY.replace("[target]", 'patient = "id"\n[target]', 1), where="study.toml").task


def asset(folder: Path, more: str = "") -> AssetSettings:
    return read_site_settings(SITE_TOML + more, folder).assets["hearts"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text(table())
    return tmp_path


def same(one: Loaded, other: Loaded) -> bool:
    pairs = ((one.train, other.train), (one.test, other.test))
    return all(np.array_equal(left.x, right.x) and np.array_equal(left.y, right.y) for left, right in pairs)


def test_the_split_is_that_of_the_settings(folder: Path) -> None:
    frame = read_table(folder / "table.csv")
    records = encode(frame, TASK, where="it")
    for more, split in (("", Split()), ("test = 0.2\nseed = 7\n", Split(0.2, 7))):
        loaded = load(asset(folder, more), TASK)
        train, test = split_rows(records.y, split, where="it")
        assert np.array_equal(loaded.train.x, records.x[train])
        assert np.array_equal(loaded.test.y, records.y[test])
    assert len(load(asset(folder, "rows = 10\n"), TASK).train) == 10


def without(folder: Path, *gone: int) -> Path:
    """Writes the table that the site would have if these rows had never been in it."""
    lines = table().splitlines(keepends=True)
    kept = [line for number, line in enumerate(lines) if number == 0 or number not in gone]
    other = folder / "other"
    other.mkdir(exist_ok=True)
    (other / "table.csv").write_text("".join(kept))
    return other


def test_whoever_opted_out_might_never_have_been_there(folder: Path) -> None:
    (folder / "out.txt").write_text("\ufeff# by telephone\n\n 3 \n17\n60\n")
    by_row = load(asset(folder, 'opt_out = "out.txt"\n'), TASK)
    assert (by_row.opted_out, by_row.n_rows, by_row.unmatched) == (3, 60, 0)
    assert same(by_row, load(asset(without(folder, 3, 17, 60)), TASK))
    (folder / "out.txt").write_text("p2\np16\np59\np1000\n")
    by_name = load(asset(folder, 'opt_out = "out.txt"\npatient = "id"\n'), TASK)
    assert (by_name.opted_out, by_name.unmatched) == (3, 1)
    assert same(by_name, by_row)
    assert same(load(asset(folder, 'opt_out = "out.txt"\n'), VISITS), by_row)
    (folder / "table.csv").write_text(table(header="PID,age,smoker,ill"))
    assert same(load(asset(folder, 'opt_out = "out.txt"\npatient = "PID"\n'), VISITS), by_row)


def test_all_records_of_a_patient_leave(folder: Path) -> None:
    (folder / "table.csv").write_text(table().replace("p1,", "p2,").replace("p7,", "p2,"))
    (folder / "out.txt").write_text("p2\n")
    loaded = load(asset(folder, 'opt_out = "out.txt"\npatient = "id"\n'), VISITS)
    assert (loaded.opted_out, loaded.several) == (3, 3)
    assert loaded.train.n_units + loaded.test.n_units == 57


def test_numbers_name_patients_too(folder: Path) -> None:
    frame = pd.read_csv(folder / "table.csv").assign(id=np.arange(60.0))
    frame.to_parquet(folder / "table.parquet")
    (folder / "out.txt").write_text("0\n59\n")
    settings = read_site_settings(SITE_TOML.replace("table.csv", "table.parquet"), folder).assets["hearts"]
    named = asset(folder, 'opt_out = "out.txt"\npatient = "id"\n')
    parquet = AssetSettings(**{**vars(named), "path": settings.path})
    assert load(parquet, VISITS).opted_out == 2
    numbers = pd.Series(75_600_000_000_000_000 + np.arange(60), dtype="Int64")
    frame.assign(id=numbers).to_parquet(folder / "table.parquet")
    (folder / "out.txt").write_text("75600000000000003\n")
    assert (load(parquet, VISITS).opted_out, load(parquet, VISITS).train.n_units) == (1, 38)


@pytest.mark.parametrize("entry", ["0", "61", "p1", "03", "-1", "1.0", "1 2", "٣"])
def test_an_entry_that_is_no_row_stops_everything(folder: Path, entry: str) -> None:
    (folder / "out.txt").write_text(f"5\n{entry}\n")
    with pytest.raises(ConfigError, match="1 of 2 entries are no numbers of rows, 1 to 60"):
        load(asset(folder, 'opt_out = "out.txt"\n'), TASK)


def test_a_list_that_cannot_be_applied_stops_everything(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"out\.txt cannot be read"):
        load(asset(folder, 'opt_out = "out.txt"\n'), TASK)
    (folder / "out.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="not text in UTF-8"):
        load(asset(folder, 'opt_out = "out.txt"\n'), TASK)
    (folder / "table.csv").write_text(table().replace("\np4,", "\n,"))
    (folder / "out.txt").write_text("p2\n")
    with pytest.raises(ConfigError, match="1 of 60 rows name no patient"):
        load(asset(folder, 'opt_out = "out.txt"\npatient = "id"\n'), TASK)


def test_somebody_who_opts_out_during_a_run_ends_it_here(folder: Path) -> None:
    (folder / "out.txt").write_text("")
    settings = asset(folder, 'opt_out = "out.txt"\npatient = "id"\n')
    loaded = load(settings, TASK)
    loaded.refuse_opted_out()
    (folder / "out.txt").write_text("elsewhere\n")
    loaded.refuse_opted_out()
    (folder / "out.txt").write_text("elsewhere\np30\n")
    with pytest.raises(PrivacyError, match=r"^1 opted out of hearts since"):
        loaded.refuse_opted_out()
    (folder / "out.txt").unlink()
    with pytest.raises(ConfigError):
        loaded.refuse_opted_out()
    (folder / "out.txt").write_text("")
    by_row = load(asset(folder, 'opt_out = "out.txt"\n'), TASK)
    (folder / "out.txt").write_text("p30\n")
    with pytest.raises(ConfigError, match="1 of 1 entries are no numbers of rows"):
        by_row.refuse_opted_out()
    load(asset(folder), TASK).refuse_opted_out()  # a site without a list


def test_a_plan_is_for_as_many_units_as_it_was_priced_for(folder: Path) -> None:
    (folder / "out.txt").write_text("")
    settings = asset(folder, 'opt_out = "out.txt"\n')
    priced = load(settings, TASK).train.n_units
    load(settings, TASK, priced=priced)
    (folder / "out.txt").write_text("1\n2\n3\n")
    with pytest.raises(PrivacyError, match=f"priced for {priced}: 3 rows are left out by the opt-out list"):
        load(settings, TASK, priced=priced)
    (folder / "table.csv").write_text(table(70))
    with pytest.raises(PrivacyError, match="the table or its settings changed"):
        load(settings, TASK, priced=priced)


def test_columns_may_be_called_otherwise(folder: Path) -> None:
    plain = load(asset(folder), TASK)
    (folder / "table.csv").write_text(table(header="PID,smoker,age,DIAG"))
    swapped = 'columns = { age = "smoker", smoker = "age", ill = "DIAG" }\n'
    assert same(load(asset(folder, swapped), TASK), plain)
    (folder / "table.csv").write_text(table(header="age,YEARS,smoker,ill"))
    assert same(load(asset(folder, 'columns = { age = "YEARS" }\n'), TASK), plain)  # the other "age" is not meant
    for more, task, reason in (
        ('columns = { height = "YEARS" }\n', TASK, "the study has no column 'height'"),
        ('columns = { age = "YAERS" }\n', TASK, "no column 'YAERS'"),
        ('patient = "pid"\n', TASK, "no column 'pid'"),
        ('patient = "age"\ncolumns = { id = "ill" }\n', VISITS, "different columns for patients"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load(asset(folder, more), task)


def test_blanks_are_refused_or_dropped(folder: Path) -> None:
    lines = table().splitlines()
    lines[5] = lines[5].replace("no", "").replace("yes", "")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ConfigError, match="'smoker' has no value in 1 of 60 rows"):
        load(asset(folder), TASK)
    assert same(load(asset(folder, 'incomplete = "drop"\n'), TASK), load(asset(without(folder, 5)), TASK))


def test_a_value_out_of_range_is_refused_without_being_shown(folder: Path) -> None:
    (folder / "table.csv").write_text(table() + "p60,117,no,1\n")
    with pytest.raises(ConfigError, match="'age' has a value outside 18 to 100 in 1 of 61 rows") as refused:
        load(asset(folder), TASK)
    assert "117" not in str(refused.value)


def test_nothing_of_the_records_is_shown(folder: Path) -> None:
    (folder / "out.txt").write_text("p3\n")
    loaded = load(asset(folder, 'opt_out = "out.txt"\npatient = "id"\n'), TASK)
    assert not any(f"p{number}" in repr(loaded) for number in range(60))


def test_own_scaling_is_done_after_the_split(folder: Path) -> None:
    own = STUDY.replace("title", 'scaling = "own"\ntitle').replace(", range = [18, 100]", "")
    task: Task = read_study(own, where="study.toml").task
    loaded = load(asset(folder), task)
    assert np.allclose(loaded.train.x.mean(axis=0), 0, atol=1e-5)
    assert np.allclose(loaded.train.x.std(axis=0, ddof=1), 1, atol=1e-5)
