"""The run folder: everything a run leaves behind, written so that a crash never leaves half a file.

``run.toml`` says what ran and how it ended (``status``), ``metrics.jsonl`` one object a round, ``model.safetensors``
the model, ``ledger.db`` the debits, ``transcript/`` the raw material of the report, ``log/`` what happened,
``report.dsse.json`` and ``report.html`` the evidence, ``trusted-keys.txt`` the key for whoever verifies. Nothing in
it is pickled, nothing identifies a record.
"""

import json
import os
from collections.abc import Mapping, Sequence
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


def read_file(path: Path, *, limit: int = 2**34) -> bytes:
    """Reads a file that a person named.

    Args:
      path: Where.
      limit: Largest size in bytes that is read.

    Raises: ConfigError: It is not there, not a file, too large, or cannot be read.
    """
    try:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder, not a file")
        if path.stat().st_size > limit:
            raise ConfigError(f"{path} is larger than {limit // 2**20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error


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
