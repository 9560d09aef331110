import hashlib
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from privacy.errors import ConfigError
from privacy.store.run_folder import RunFolder, read_file, sha256_of, to_toml

values = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x7f")),
    st.lists(st.integers(-9, 9)),
)
keys = st.text(min_size=1, alphabet=st.characters(min_codepoint=32, max_codepoint=126))


@given(st.dictionaries(keys, values), st.dictionaries(keys, st.dictionaries(keys, values)))
def test_what_is_written_as_toml_reads_back(top: dict[str, object], tables: dict[str, dict[str, object]]) -> None:
    sections = {**top, **tables}
    assert tomllib.loads(to_toml(sections).decode()) == sections


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    folder.write("run.toml", b"one")
    folder.write("run.toml", b"two")
    folder.append("metrics.jsonl", {"round": 1})
    folder.append("metrics.jsonl", {"round": 2})
    assert folder.read("run.toml") == b"two"
    assert folder.read("metrics.jsonl") == b'{"round": 1}\n{"round": 2}\n'
    assert not list(folder.path.glob("*.part"))


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        RunFolder.create(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_unwritable_place_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        RunFolder.create(tmp_path / "file" / "run")


def test_what_never_ends_or_never_comes_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless"):
        for read in (read_file, sha256_of):
            with pytest.raises(ConfigError, match=f"{name} is a pipe or a device, not a file"):
                read(tmp_path / name)


def test_a_file_that_says_nothing_of_its_size_is_read_up_to_the_limit(tmp_path: Path) -> None:
    (tmp_path / "endless").symlink_to("/proc/self/pagemap")  # its size is 0, and there are 256 GiB of it
    for read in (read_file, sha256_of):
        with pytest.raises(ConfigError, match="endless is larger than 4 MiB"):
            read(tmp_path / "endless", limit=2**22)
    assert read_file(Path("/proc/self/stat")).startswith(b"%d " % os.getpid())


def test_a_digest_is_that_of_the_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000  # more than is read at once
    (tmp_path / "data").write_bytes(data)
    assert sha256_of(tmp_path / "data", limit=len(data)) == hashlib.sha256(data).hexdigest()
    assert read_file(tmp_path / "data", limit=len(data)) == data
    with pytest.raises(ConfigError, match="larger"):
        sha256_of(tmp_path / "data", limit=len(data) - 1)


def test_reading_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_file(tmp_path / "absent")
    with pytest.raises(ConfigError, match="folder"):
        read_file(tmp_path)
    (tmp_path / "big").write_bytes(b"12345")
    with pytest.raises(ConfigError, match="larger"):
        read_file(tmp_path / "big", limit=4)


@pytest.mark.parametrize("there", [True, False])
def test_a_preparation_that_fails_leaves_the_place_as_it_was(there: bool, tmp_path: Path) -> None:
    place = tmp_path / "run"
    if there:
        place.mkdir()

    def fail(folder: RunFolder) -> None:
        folder.write("run.toml", b"half")
        folder.append("log/lines", b"one")
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), RunFolder.prepared(place) as folder:
            fail(folder)
        assert list(tmp_path.rglob("*")) == [place] * there
    with RunFolder.prepared(place) as folder:
        folder.write("run.toml", b"whole")
    assert folder.read("run.toml") == b"whole"


def test_a_place_with_something_in_it_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ConfigError, match="not an empty folder"), RunFolder.prepared(tmp_path):
        raise AssertionError
    assert (tmp_path / "mine").exists()
