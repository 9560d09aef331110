"""Images: pinned rows, the same from every source, refused when damaged. The idx files here are made up."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from privacy.errors import ConfigError
from simulations.data import images
from simulations.data.datasets import at_hand, load_sites
from simulations.data.images import read_digits, read_fashion
from simulations.scenario import load
from tests.simulations.serving import owner

HOME = Path(os.environ["COLLEGIUM_DATA"]) if os.environ.get("COLLEGIUM_DATA") else None
NAMES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
USED = (5, 5, 2, 2)

Arrays = list[npt.NDArray[np.uint8]]


def test_digits_are_the_owners_test_part() -> None:
    table = read_digits(load("digits"), None)[0]
    # As published with the data set: "No of examples in testing set".
    assert np.bincount(table["label"]).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    pixels = table.drop(columns="label")
    assert pixels.shape == (1797, 64)
    assert (int(pixels.to_numpy().min()), int(pixels.to_numpy().max())) == (0, 16)


def test_digits_are_dealt_to_ten_agents() -> None:
    sites = load_sites(load("digits"), None)
    assert [len(site.train) + len(site.test) for site in sites] == [36] * 5 + [323, 324, 323, 324, 323]
    images = np.concatenate([part.x for site in sites for part in (site.train, site.test)])
    table = read_digits(load("digits"), None)[0].drop(columns="label").to_numpy()
    # Every image once, encoded by the public constants.
    expected = (table.astype(np.float64) / 8 - 1).astype(np.float32)
    assert sorted(map(bytes, images)) == sorted(map(bytes, expected))


def made(extra: int = 3) -> Arrays:
    """Returns training images and classes, then those to test; ``extra`` more than are used."""
    rng = np.random.default_rng(11)
    shapes = [(5 + extra, 4, 3), (5 + extra,), (2 + extra, 4, 3), (2 + extra,)]
    return [rng.integers(0, 256 if len(shape) > 1 else 10, shape, dtype=np.uint8) for shape in shapes]


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    """Returns a file in the idx format, by its description: magic number, sizes in big-endian order, bytes."""
    head = struct.pack(f">I{array.ndim}I", 0x00000800 + array.ndim, *array.shape)
    return gzip.compress(head + array.tobytes(), mtime=0)


def expected_table(arrays: Arrays) -> pd.DataFrame:
    images = np.concatenate([arrays[0][:5], arrays[2][:2]]).reshape(7, 12)
    table = pd.DataFrame(images, columns=[f"pixel_{index}" for index in range(12)])
    return table.assign(label=np.concatenate([arrays[1][:5], arrays[3][:2]]))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Arrays:
    """Declares the made images to be Fashion-MNIST, found nowhere yet."""
    arrays = made()
    table = expected_table(arrays)
    content = table.drop(columns="label").to_numpy().tobytes() + table["label"].to_numpy().tobytes()
    monkeypatch.setattr(images, "_FASHION_SHA256", hashlib.sha256(content).hexdigest())
    digests = [hashlib.md5(idx(array), usedforsecurity=False).hexdigest() for array in arrays]
    declared = {name: (digest, count) for name, digest, count in zip(NAMES, digests, USED, strict=True)}
    monkeypatch.setattr(images, "_IDX_FILES", declared)
    monkeypatch.setattr(images, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(images, "_OWNER", "http://127.0.0.1:9/")  # the discard port: nobody listens
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return arrays


def write_idx(folder: Path, arrays: Arrays) -> None:
    folder.mkdir(parents=True)
    for name, array in zip(NAMES, arrays, strict=True):
        (folder / name).write_bytes(idx(array))


def write_npz(home: Path, arrays: Arrays) -> Path:
    (home / "images").mkdir(parents=True)
    path = home / load("fashion").sites[0].file
    names = ("train_images", "train_labels", "test_images", "test_labels")
    np.savez(path, **dict(zip(names, arrays, strict=True)))  # type: ignore[arg-type]  # numpy's stub has one keyword
    return path


def used(arrays: Arrays) -> Arrays:
    return [array[:count] for array, count in zip(arrays, USED, strict=True)]


def test_every_source_has_the_same_rows(small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = load("fashion")
    write_idx(tmp_path / "owner", small)
    with owner(tmp_path / "owner") as address:
        monkeypatch.setattr(images, "_OWNER", address)
        assert at_hand(scenario, None) == f"fetched when first used from {address}"
        fetched = read_fashion(scenario, None)
    again = read_fashion(scenario, None)  # the owner is gone; the user's cache is not
    write_idx(tmp_path / "debian", small)
    assert at_hand(scenario, tmp_path) == "at hand in Debian's package dataset-fashion-mnist"
    packaged = read_fashion(scenario, tmp_path)
    write_npz(tmp_path, used(small))
    assert at_hand(scenario, tmp_path) == f"at hand in {tmp_path}"
    for tables in (fetched, again, packaged, read_fashion(scenario, tmp_path)):
        assert len(tables) == 10
        pd.testing.assert_frame_equal(tables[0], expected_table(small))


@pytest.mark.skipif(HOME is None, reason="COLLEGIUM_DATA names no folder with the images")
def test_the_data_home_has_the_declared_images() -> None:
    table = read_fashion(load("fashion"), HOME)[0]
    assert table.shape == (6000, 785)
    assert table["label"][:5].tolist() == [9, 0, 0, 3, 0]
    sites = load_sites(load("fashion"), HOME)
    assert [len(site.train) + len(site.test) for site in sites] == [120] * 5 + [1080] * 5
    assert sites[0].train.x.shape == (90, 784)
    assert {float(site.train.x.max()) for site in sites} == {1.0}


def test_without_network_one_plain_error(small: Arrays) -> None:
    del small
    with pytest.raises(
        ConfigError, match=r"^train-images-idx3-ubyte\.gz cannot be fetched from its owner: no"
    ) as caught:
        read_fashion(load("fashion"), None)
    assert "dataset-fashion-mnist" in caught.value.hint


def test_changed_download_is_refused(small: Arrays, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small[3][0] ^= 1
    write_idx(tmp_path / "owner", small)
    with owner(tmp_path / "owner") as address:
        monkeypatch.setattr(images, "_OWNER", address)
        with pytest.raises(ConfigError, match=r"^t10k-labels-idx1-ubyte\.gz: wrong checksum$"):
            read_fashion(load("fashion"), None)


@pytest.mark.parametrize("position", range(4))
def test_one_changed_byte_is_refused_wherever_it_came_from(small: Arrays, tmp_path: Path, position: int) -> None:
    small[position].flat[1] ^= 1
    write_idx(tmp_path / "debian", small)
    with pytest.raises(ConfigError, match=r"debian: wrong checksum of the images$"):
        read_fashion(load("fashion"), None)
    path = write_npz(tmp_path, used(small))
    with pytest.raises(ConfigError, match=rf"{path.name}: wrong checksum of the images$"):
        read_fashion(load("fashion"), tmp_path)


DAMAGE = {
    "no gzip": b"\0\0\x08\x03",
    "cut": idx(made()[0])[:60],
    "empty": gzip.compress(b""),
    "another magic number": gzip.compress(b"\0\0\x09\x03" + bytes(400)),
    "no dimensions": gzip.compress(b"\0\0\x08\0" + bytes(400)),
    "a cut head": gzip.compress(b"\0\0\x08\x03\0\0\0\x05\0\0"),
    "too few images": idx(made()[0][:4]),
    "fewer bytes than announced": gzip.compress(struct.pack(">IIII", 0x803, 8, 4, 3) + bytes(40)),
    "sizes beyond reason": gzip.compress(struct.pack(">IIII", 0x803, *[2**32 - 1] * 3) + bytes(40)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_idx_files_are_refused(small: Arrays, tmp_path: Path, damage: str) -> None:
    write_idx(tmp_path / "debian", small)
    (tmp_path / "debian" / NAMES[0]).write_bytes(DAMAGE[damage])
    with pytest.raises(ConfigError, match=r"train-images-idx3-ubyte\.gz: truncated or damaged$") as caught:
        read_fashion(load("fashion"), None)
    assert caught.value.hint


def test_damaged_or_absent_file_in_the_data_home_is_refused(small: Arrays, tmp_path: Path) -> None:
    path = write_npz(tmp_path, used(small))
    whole = path.read_bytes()
    for content in (b"", whole[:-40], whole[:200], b"no archive"):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=rf"{path.name}: truncated or damaged$"):
            read_fashion(load("fashion"), tmp_path)
    np.savez(path, train_images=small[0])
    with pytest.raises(ConfigError, match=rf"{path.name}: truncated or damaged$"):
        read_fashion(load("fashion"), tmp_path)
    path.unlink()
    with pytest.raises(ConfigError, match=rf"{path.name}: no such file$"):
        read_fashion(load("fashion"), tmp_path)
