"""The file of private parameters: by name, whole or not at all, and refused if it is another's."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from clients.private_part import read_private, write_private
from privacy.errors import ConfigError
from strategies.layout import Layout
from strategies.sub_models import SubModel, keys

LAYOUT = Layout(("norm", "body", "head.weight", "head.bias"), ((2,), (3,), (2, 3), (2,)))
PART = keys(LAYOUT, ["body"], private=["norm", "head.*"])
VALUES = np.linspace(-1, 2, 10, dtype=np.float32)


def test_what_is_written_is_read_back_bit_for_bit(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_private(path, PART, VALUES)
    read = read_private(path, PART)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, VALUES)


def test_parameters_are_there_by_their_names_and_nothing_that_is_shared(tmp_path: Path) -> None:
    """For a stranger with another tool: names and shapes are those of the site's own model."""
    path = tmp_path / "site.safetensors"
    write_private(path, PART, VALUES)
    arrays = safetensors.numpy.load(path.read_bytes())
    assert {name: array.shape for name, array in arrays.items()} == {
        "norm": (2,),
        "head.weight": (2, 3),
        "head.bias": (2,),
    }
    np.testing.assert_array_equal(arrays["norm"], VALUES[:2])
    np.testing.assert_array_equal(arrays["head.weight"], VALUES[2:8].reshape(2, 3))
    np.testing.assert_array_equal(arrays["head.bias"], VALUES[8:])


def test_a_later_round_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_private(path, PART, VALUES)
    write_private(path, PART, -VALUES)
    np.testing.assert_array_equal(read_private(path, PART), -VALUES)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_is_cut_short_keeps_the_old_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, original = tmp_path / "site.safetensors", Path.write_bytes
    write_private(path, PART, VALUES)

    def torn(self: Path, data: bytes) -> int:
        original(self, data[:30])
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(Path, "write_bytes", torn)
    with pytest.raises(OSError, match="no space"):
        write_private(path, PART, -VALUES)
    np.testing.assert_array_equal(read_private(path, PART), VALUES)


def other_part() -> SubModel:
    layout = Layout(LAYOUT.names, ((2,), (3,), (2, 2), (2,)))
    return keys(layout, ["body"], private=["norm", "head.*"])


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"not safetensors at all",
        safetensors.numpy.save({}),
        safetensors.numpy.save({"norm": np.zeros(2, np.float32)}),
        safetensors.numpy.save({
            "norm": np.zeros(2, np.float32), "body": np.zeros(3, np.float32),
            "head.weight": np.zeros((2, 3), np.float32), "head.bias": np.zeros(2, np.float32),
        }),
    ],
    ids=["missing", "empty", "garbage", "no parameters", "too few", "too many"],
)  # fmt: skip
def test_another_file_is_refused_in_plain_words(data: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"site\.safetensors: (the private parameters cannot|holds other parameters)"):
        read_private(path, PART)


def test_the_file_of_another_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.safetensors"
    write_private(path, other_part(), VALUES[:8])
    with pytest.raises(ConfigError, match=r"holds other parameters than norm, head\.weight, head\.bias"):
        read_private(path, PART)
