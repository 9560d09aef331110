"""The run folder: everything a run leaves behind, written so that a crash never leaves half a file.

``run.toml`` says what ran and how it ended (``status``), ``metrics.jsonl`` one object a round, ``model.safetensors``
the model, ``ledger.db`` the debits, ``transcript/`` the raw material of the report, ``log/`` what happened,
``report.dsse.json`` and ``report.html`` the evidence, ``trusted-keys.txt`` the key for whoever verifies. Nothing in
it is pickled, nothing identifies a record.
"""

import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from privacy.errors import ConfigError

RUN_FILE = "run.toml"
METRICS_FILE = "metrics.jsonl"
MODEL_FILE = "model.safetensors"
LEDGER_FILE = "ledger.db"
REPORT_FILE = "report.dsse.json"
PAGE_FILE = "report.html"
TRUST_FILE = "trusted-keys.txt"
MAX_FILE_BYTES = 2**34
"""Of a file whose contents set no smaller limit, such as a model."""
_AT_ONCE = 2**20


class RunFolder:
    """A folder of one run; its files are replaced whole or appended by whole lines.

    Attributes:
      path: Absolute.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunFolder":
        """Makes a new folder.

        Raises: ConfigError: It exists and is not empty, or cannot be written.
        """
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links the user chose
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ConfigError(f"{path} exists and is not an empty folder", hint="Choose another --out.")
            for folder in (path, path / "log", path / "transcript"):
                folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(path, error) from error
        return cls(path)

    @classmethod
    @contextmanager
    def prepared(cls, path: Path) -> Iterator["RunFolder"]:
        """Lends a new folder to be filled before a run begins; whatever fails there leaves the place as it was.

        Raises: ConfigError: As ``create``.
        """
        there = os.path.exists(path)  # noqa: PTH110 - Path's raises where it may not look
        folder = cls.create(path)
        try:
            yield folder
        except BaseException:
            with suppress(OSError):  # what failed first is what a person must know
                for each in folder.path.iterdir():  # all of it is ours: the place was empty
                    shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
                if not there:
                    folder.path.rmdir()
            raise

    def write(self, name: str, data: bytes) -> Path:
        """Replaces a file whole and durably. Raises: ConfigError: It cannot be written."""
        target = self.path / name
        temporary = target.with_name(target.name + ".part")
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise _unwritable(target, error) from error
        return target

    def remove(self, name: str) -> None:
        """Removes a file if it is there. Raises: ConfigError: It cannot be removed."""
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error

    def append(self, name: str, line: Mapping[str, Any] | bytes) -> None:
        """Appends one JSON object as one line, or a line as it is. Raises: ConfigError: It cannot be written."""
        data = line if isinstance(line, bytes) else (json.dumps(line, ensure_ascii=False) + "\n").encode()
        try:
            with (self.path / name).open("ab") as file:
                file.write(data)
        except OSError as error:
            raise _unwritable(self.path / name, error) from error

    def read(self, name: str) -> bytes:
        """Reads a file. Raises: ConfigError: It is not there or cannot be read."""
        return read_file(self.path / name)


def read_file(path: Path, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Reads a file that a person named.

    Args:
      path: Where.
      limit: Largest size in bytes that is read.

    Raises: ConfigError: It is not there, not a file, too large, or cannot be read.
    """
    data = io.BytesIO()
    for part in _parts(path, limit):
        data.write(part)
    return data.getvalue()


def sha256_of(path: Path, *, limit: int = MAX_FILE_BYTES) -> str:
    """Returns the SHA-256 of a file that a person named, as hex; the file is never in memory as a whole.

    Args:
      path: Where.
      limit: Largest size in bytes that is read.

    Raises: ConfigError: As ``read_file``.
    """
    digest = hashlib.sha256()
    for part in _parts(path, limit):
        digest.update(part)
    return digest.hexdigest()


def _parts(path: Path, limit: int) -> Iterator[bytes]:
    """Yields a file's bytes. It waits for nobody and comes to an end: pipes and devices are refused, links followed."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path} is a pipe or a device, not a file")
            left = limit - found.st_size  # of a file in /proc, 0 says nothing
            while left >= 0 and (part := file.read(_AT_ONCE)):
                yield part
                left = limit - file.tell()
            if left < 0:
                raise ConfigError(f"{path} is larger than {limit // 2**20} MiB")
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder, not a file") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


def read_text(path: Path, *, limit: int = MAX_FILE_BYTES) -> str:
    """Reads a text that a person named. Raises: ConfigError: As ``read_file``, or it is not text in UTF-8."""
    try:
        return read_file(path, limit=limit).decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not text in UTF-8") from None


def to_toml(sections: Mapping[str, Any]) -> bytes:
    """Writes flat values and one level of tables as TOML; the standard library reads TOML but does not write it."""
    tables = {key: value for key, value in sections.items() if isinstance(value, Mapping)}
    lines = [f"{_key(key)} = {_value(value)}" for key, value in sections.items() if key not in tables]
    for name, table in tables.items():
        lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(value)}" for key, value in table.items())]
    return ("\n".join(lines) + "\n").encode()


def _key(key: str) -> str:
    return json.dumps(key) if not key.replace("_", "").replace("-", "").isalnum() else key


def _value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)  # a JSON string is a TOML basic string


def _unwritable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"{path} cannot be written: {error.strerror or error}", hint="Choose another --out, or free space."
    )
