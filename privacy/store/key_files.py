"""Private keys on disk: files of mode 0600 in folders of mode 0700, written once and whole, never replaced.

Reading refuses what anybody else could have read or written: a wider mode, another owner, a link. Both are checked on
the open file, not on its name.
"""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from privacy.errors import ConfigError
from privacy.keys.signing import SEED_BYTES, SigningKey

MAX_KEY_BYTES = 65_536
FOLDER_MODE = 0o700
FILE_MODE = 0o600


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fills a new folder that appears at ``path`` with everything in it, or not at all.

    Yields: A temporary folder beside it, of mode 0700, to put files into; an interrupt or an error removes it.
    Raises: ConfigError: ``path`` exists and is not an empty folder, or cannot be written.
    """
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links the user chose
    draft = None
    try:
        if path.is_symlink() or (path.exists() and (not path.is_dir() or any(path.iterdir()))):
            raise ConfigError(f"{path} exists and is not an empty folder", hint="Keys are never overwritten.")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        draft.chmod(FOLDER_MODE)
        yield draft
        draft.rename(path)  # fails if somebody filled ``path`` meanwhile
        _sync(path.parent)
    except OSError as error:
        raise _failed(path, error, "written") from error
    finally:
        if draft is not None:
            shutil.rmtree(draft, ignore_errors=True)  # gone already if all went well


def make_folder(path: Path) -> None:
    """Makes one folder of mode 0700 inside a checked one. Raises: ConfigError: It exists or cannot be made."""
    check_folder(path.parent)
    try:
        path.mkdir(FOLDER_MODE)
        path.chmod(FOLDER_MODE)
        _sync(path.parent)
    except OSError as error:
        raise _failed(path, error, "made") from error


def check_folder(path: Path) -> None:
    """Refuses a folder of keys that others can enter.

    Raises: ConfigError: It is none, a link, somebody else's, or its mode is wider than 0700.
    """
    try:
        _check(path, os.lstat(path), stat.S_ISDIR, FOLDER_MODE)
    except OSError as error:
        raise _failed(path, error, "read") from error


def write_new(path: Path, data: bytes) -> None:
    """Writes a file of mode 0600 durably and whole; an interrupt or a crash leaves it complete or absent.

    Raises: ConfigError: It exists already, or the folder is not one for keys, or it cannot be written.
    """
    check_folder(path.parent)
    draft = None
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        draft = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        path.hardlink_to(draft)  # unlike a rename it fails where the name is taken
        _sync(path.parent)
    except FileExistsError:
        raise ConfigError(f"{path} exists", hint="Keys and certificates are never overwritten.") from None
    except OSError as error:
        raise _failed(path, error, "written") from error
    finally:
        if draft is not None:
            with suppress(OSError):
                draft.unlink()


def read_private(path: Path) -> bytes:
    """Reads a file that nobody else may read.

    Raises: ConfigError: It or its folder is a link, somebody else's or wider than 0600 and 0700, or cannot be read.
    """
    check_folder(path.parent)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            _check(path, os.fstat(descriptor), stat.S_ISREG, FILE_MODE)
            data = file.read(MAX_KEY_BYTES + 1)
    except OSError as error:
        raise _failed(path, error, "read") from error
    if len(data) > MAX_KEY_BYTES:
        raise ConfigError(f"{path} is too large to be a key")
    return data


def read_pen(path: Path) -> SigningKey:
    """Reads the signing key of a person. Raises: ConfigError: It is none, or somebody else could have read it."""
    seed = read_private(path)
    if len(seed) != SEED_BYTES:
        raise ConfigError(f"{path} is not a signing key", hint="Make one: collegium federation key --out FILE.")
    return SigningKey(seed)


def _check(path: Path, found: os.stat_result, kind: Callable[[int], bool], mode: int) -> None:
    if not kind(found.st_mode):
        raise ConfigError(f"{path} is not a {'folder' if mode == FOLDER_MODE else 'file'} of its own")
    if found.st_uid != os.geteuid():
        raise ConfigError(f"{path} belongs to another user", hint="Keys must belong to the user that runs this.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise ConfigError(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"Ask who could have read it; if nobody did: chmod {mode:o}.",
        )


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _failed(path: Path, error: OSError, verb: str) -> ConfigError:
    return ConfigError(f"{path} cannot be {verb}: {error.strerror or error}")
