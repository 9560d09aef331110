"""Key files: 0600 in 0700, whole or absent, never replaced; anything that others could have read is refused."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from privacy.errors import ConfigError
from privacy.store import key_files
from privacy.store.key_files import MAX_KEY_BYTES, check_folder, make_folder, new_folder, read_private, write_new


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    with new_folder(path) as draft:
        write_new(draft / "a.key", b"secret")
    return path


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o277])
def test_modes_are_exact_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with new_folder(tmp_path / "keys") as draft:
            write_new(draft / "a.key", b"secret")
            make_folder(draft / "more")
    finally:
        os.umask(before)
    made = tmp_path / "keys"
    assert (mode(made), mode(made / "a.key"), mode(made / "more")) == (0o700, 0o600, 0o700)
    assert sorted(path.name for path in made.iterdir()) == ["a.key", "more"]
    assert read_private(made / "a.key") == b"secret"


@pytest.mark.parametrize("bits", [0o040, 0o020, 0o004, 0o002, 0o001])
def test_wider_modes_are_refused(folder: Path, bits: int) -> None:
    (folder / "a.key").chmod(0o600 | bits)
    with pytest.raises(ConfigError, match="open to other users") as refused:
        read_private(folder / "a.key")
    assert "chmod 600" in refused.value.hint
    (folder / "a.key").chmod(0o600)
    folder.chmod(0o700 | bits)
    for act in (check_folder, lambda path: read_private(path / "a.key"), lambda path: write_new(path / "b", b"")):
        with pytest.raises(ConfigError, match="open to other users"):
            act(folder)
    with pytest.raises(ConfigError, match="open to other users"):
        make_folder(folder / "more")
    folder.chmod(0o700)
    assert read_private(folder / "a.key") == b"secret"


def test_another_owner_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        check_folder(folder)
    monkeypatch.setattr(key_files, "check_folder", lambda _: None)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_private(folder / "a.key")


def test_links_pipes_and_folders_are_no_keys(folder: Path, tmp_path: Path) -> None:
    (folder / "link").symlink_to(folder / "a.key")
    os.mkfifo(folder / "pipe", 0o600)
    make_folder(folder / "more")
    for name in ("link", "pipe", "more", "absent"):
        with pytest.raises(ConfigError):
            read_private(folder / name)
    (tmp_path / "way").symlink_to(folder)
    with pytest.raises(ConfigError, match="not a folder of its own"):
        read_private(tmp_path / "way" / "a.key")
    with pytest.raises(ConfigError, match="cannot be read"):
        check_folder(tmp_path / "absent")
    write_new(folder / "large", bytes(MAX_KEY_BYTES + 1))
    with pytest.raises(ConfigError, match="too large"):
        read_private(folder / "large")


def test_nothing_is_overwritten(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exists"):
        write_new(folder / "a.key", b"other")
    assert read_private(folder / "a.key") == b"secret"
    assert [path.name for path in folder.iterdir()] == ["a.key"]
    (tmp_path / "file").write_text("")
    (tmp_path / "way").symlink_to(tmp_path / "nowhere")
    for path in (folder, tmp_path / "file", tmp_path / "way"):
        with pytest.raises(ConfigError, match="exists and is not an empty folder"), new_folder(path):
            pytest.fail("nothing is to be written")
    with pytest.raises(ConfigError, match="cannot be made"):
        make_folder(folder / "a.key")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "keys", "way"]


def test_an_empty_folder_is_taken_over_with_its_mode_made_right(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(0o755)
    with new_folder(tmp_path / "keys") as draft:
        write_new(draft / "a.key", b"secret")
    assert mode(tmp_path / "keys") == 0o700


def test_somebody_who_is_faster_keeps_what_they_wrote(tmp_path: Path) -> None:
    def slow() -> None:
        with new_folder(tmp_path / "keys") as draft:
            write_new(draft / "a.key", b"ours")
            (tmp_path / "keys").mkdir()
            (tmp_path / "keys" / "a.key").write_bytes(b"theirs")

    with pytest.raises(ConfigError, match="cannot be written"):
        slow()
    assert (tmp_path / "keys" / "a.key").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["keys"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ConfigError("no")])
def test_an_interrupt_leaves_nothing(tmp_path: Path, error: type[BaseException] | BaseException) -> None:
    def interrupted() -> None:
        with new_folder(tmp_path / "keys") as draft:
            write_new(draft / "a.key", b"secret")
            raise error

    with pytest.raises((KeyboardInterrupt, ConfigError)):
        interrupted()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", ["fsync", "link"])
def test_a_disk_that_fails_leaves_no_half_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(ConfigError, match=r"b\.key cannot be written: No space left"):
        write_new(folder / "b.key", b"secret")
    assert [path.name for path in folder.iterdir()] == ["a.key"]


def test_the_content_and_the_name_reach_the_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def record(descriptor: int) -> None:
        synced.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        assert (folder / "b.key").exists() is (synced[-1] == "folder")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    write_new(folder / "b.key", b"secret")
    assert synced == ["file", "folder"]


def test_the_name_of_a_new_folder_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    with new_folder(tmp_path / "keys") as draft:
        make_folder(draft / "more")
        assert synced == [draft.stat().st_ino]
    assert synced[1:] == [tmp_path.stat().st_ino]


def test_a_kill_leaves_the_folder_whole_or_absent(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from privacy.store.key_files import new_folder, write_new\n"
        "for n in range(10**6):\n"
        "    with new_folder(pathlib.Path(sys.argv[1], str(n))) as draft:\n"
        "        for name in 'abc': write_new(draft / name, b'secret')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=Path(__file__).parents[3])
    while not (tmp_path / "20").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    whole = [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
    assert len(whole) > 20
    for path in whole:
        assert mode(path) == 0o700
        assert {file.name: file.read_bytes() for file in path.iterdir()} == dict.fromkeys("abc", b"secret")
    assert all(mode(path) == 0o700 for path in tmp_path.iterdir())
