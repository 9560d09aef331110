"""One process at a time drives a run: a lock on its folder that ends with the process, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from privacy.errors import ConfigError

LOCK_FILE = "lock"


def is_driven(folder: Path) -> bool:
    """Whether a process holds the folder now."""
    try:
        with alone_in(folder):
            return False
    except ConfigError:
        return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds the folder; it belongs on a local disk.

    Raises: ConfigError: Another process holds it, or it cannot be written.
    """
    path = folder / LOCK_FILE
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process is driving the run in {folder}", hint="Wait until it has ended, or stop it."
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be locked: {error.strerror or error}") from error
        yield
    finally:
        os.close(descriptor)  # the file stays: who removed it could lock another one of that name
