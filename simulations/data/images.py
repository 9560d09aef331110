"""Two public sets of small grey images, each one table with a column per pixel, row by row, and one for the class.

``digits``: the 1,797 images of 8 x 8 that scikit-learn carries, the test part of Alpaydin and Kaynak, Optical
Recognition of Handwritten Digits, UCI 1998. ``fashion``: of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017) the first
5,000 training and 1,000 test images of 28 x 28, the same rows from every source.
"""

import gzip
import hashlib
import importlib.util
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError
from simulations.data.public import fetch, in_data_home
from simulations.scenario import Scenario

if TYPE_CHECKING:
    import pandas as pd

_Bytes = npt.NDArray[np.uint8]

# Of all pixels, then all classes, a byte each.
_DIGITS_SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
_FASHION_SHA256 = "1ed898759fe2ed91d633eb16822a58a8ffc94afe6174b16ccdfad65f6a8c60eb"

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")  # of the file in the data home
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_OWNER = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
# The owner's MD5 of each file, and how many of its items are used. Debian compresses anew, so its files differ.
_IDX_FILES = {
    "train-images-idx3-ubyte.gz": ("8d4fb7e6c68d591d4c3dfef9ec88bf0d", 5000),
    "train-labels-idx1-ubyte.gz": ("25c81989df183df01b3e8a0aad5dffbe", 5000),
    "t10k-images-idx3-ubyte.gz": ("bef4ecab320f06d8554ea6380940ec79", 1000),
    "t10k-labels-idx1-ubyte.gz": ("bb300cfdad3c16e7a12a480ee83cd310", 1000),
}
_IDX_BYTES = (
    b"\0\0\x08"  # what a file of single bytes starts with; then the number of dimensions, then each, four bytes
)


def read_digits(scenario: Scenario, _data_home: Path | None) -> list["pd.DataFrame"]:
    """Returns the table of digits, once for each site. Raises: ConfigError: Not the rows that were declared."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second that only reading data may cost

    found = load_digits()
    arrays = found.images.astype(np.uint8), found.target.astype(np.uint8)
    return [_table(arrays, _DIGITS_SHA256, scenario.sites[0].file)] * len(scenario.sites)


def digits_at_hand(_scenario: Scenario, _data_home: Path | None) -> str:
    """Returns where the digits would come from; reads nothing."""
    here = importlib.util.find_spec("sklearn") is not None
    return "at hand in the installed package scikit-learn" if here else "pip install scikit-learn brings them"


def read_fashion(scenario: Scenario, data_home: Path | None) -> list["pd.DataFrame"]:
    """Returns the table of Fashion-MNIST, once for each site.

    Raises: ConfigError: It is not at hand and cannot be fetched, is damaged, or has other rows than declared.
    """
    local = in_data_home(scenario, data_home)
    file = scenario.sites[0].file
    if local is not None:
        arrays, where = _npz(local / file), str(local / file)
    else:
        paths = [(_DEBIAN / name) if _debian() else _fetched(name) for name in _IDX_FILES]
        counts = [count for _, count in _IDX_FILES.values()]
        arrays, where = [_idx(path, count) for path, count in zip(paths, counts, strict=True)], str(paths[0].parent)
    images, labels = arrays[::2], arrays[1::2]
    joined = np.concatenate(images), np.concatenate(labels)
    return [_table(joined, _FASHION_SHA256, where)] * len(scenario.sites)


def fashion_at_hand(scenario: Scenario, data_home: Path | None) -> str:
    """Returns where Fashion-MNIST would come from; reads and fetches nothing."""
    if in_data_home(scenario, data_home) is not None:
        return f"at hand in {data_home}"
    return (
        "at hand in Debian's package dataset-fashion-mnist" if _debian() else f"fetched when first used from {_OWNER}"
    )


def _debian() -> bool:
    return all((_DEBIAN / name).is_file() for name in _IDX_FILES)


def _fetched(name: str) -> Path:
    return fetch(
        _OWNER,
        name,
        digest=f"md5:{_IDX_FILES[name][0]}",
        instead="Debian's package dataset-fashion-mnist has the same images; or set COLLEGIUM_DATA to a folder that has"
        " them.",
    )


def _npz(path: Path) -> list[_Bytes]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return [np.asarray(found[name], dtype=np.uint8) for name in _ARRAYS]
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint="COLLEGIUM_DATA names a folder without it.") from None
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error):
        raise _damaged(path) from None


def _idx(path: Path, count: int) -> _Bytes:
    """Returns the first items of a file of bytes in the idx format, of the shape that its head gives."""
    try:
        with gzip.open(path) as file:
            head = file.read(4)
            dimensions = np.frombuffer(file.read(4 * head[3]), dtype=">u4").tolist() if len(head) == 4 else []
            if head[:3] != _IDX_BYTES or not dimensions or len(dimensions) != head[3]:
                raise _damaged(path)
            shape = (count, *dimensions[1:])
            return np.frombuffer(file.read(math.prod(shape)), dtype=np.uint8).reshape(shape)
    except (OSError, EOFError, ValueError, OverflowError, zlib.error):
        raise _damaged(path) from None


def _damaged(path: Path) -> ConfigError:
    return ConfigError(f"{path}: truncated or damaged", hint="Fetch the file again.")


def _table(arrays: Sequence[_Bytes], sha256: str, where: str) -> "pd.DataFrame":
    """Returns images, shape ``(n, h, w)``, and classes, shape ``(n,)``, as a table, if they are the expected ones."""
    import pandas as pd  # noqa: PLC0415 - a heavy import, only where data is read

    images, labels = arrays
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != sha256:
        raise ConfigError(f"{where}: wrong checksum of the images", hint="They are not those the scenario is about.")
    pixels = images.reshape(len(labels), -1)
    names = [f"pixel_{index}" for index in range(pixels.shape[1])]
    return pd.concat([pd.DataFrame(pixels, columns=names), pd.DataFrame({"label": labels})], axis="columns")
