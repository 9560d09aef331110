"""What a site keeps on disk of each run, so that a killed agent goes on where it was: ``runs/RUN`` in its folder.

``invitation`` as it was let pass, ``node`` (Flower's number of the run, which changes when the server resumes),
``units`` (records that the plan was priced for), ``conformance`` (what was said of the release paths), ``state`` (what
the app remembers), ``egress.jsonl`` (what was sent), ``statement`` (what was stated last) and ``closed`` once the run
is over. Files are replaced whole and durably.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from privacy.audit import egress
from privacy.audit.egress import Sent
from privacy.errors import ConfigError, RemoteProtocolError
from privacy.secagg.encoding import dumps, is_site_id, loads
from privacy.store.run_folder import RunFolder, read_file

_MOST_BYTES = 2**32


class RunStore:
    """The folder of one run at one site. ``name`` was checked: it is a folder of its own and nothing else."""

    def __init__(self, runs: Path, name: str) -> None:
        """Opens it; nothing is made before `admit`. Raises: RemoteProtocolError: No run may be called that."""
        if not is_site_id(name) or name.startswith("."):
            raise RemoteProtocolError("a run is named by 1 to 64 of a-z 0-9 . _ -", phase="hello")
        self.name = name
        self._folder = RunFolder(runs / name)

    @classmethod
    def of_node(cls, runs: Path, number: int) -> "RunStore | None":
        """Finds the run that Flower numbers so, as the last resumption left it."""
        for path in sorted(runs.glob("*/node")):
            if read_file(path, limit=64) == str(number).encode():
                return cls(runs, path.parent.name)
        return None

    @property
    def path(self) -> Path:
        """Of the folder."""
        return self._folder.path

    @property
    def closed(self) -> bool:
        """Whether the run is over for this site."""
        return (self.path / "closed").exists()

    @property
    def invitation(self) -> bytes:
        """As it was let pass; empty before."""
        return self._read("invitation")

    @property
    def statement(self) -> bytes:
        """What was stated last about the run, signed; empty before."""
        return self._read("statement")

    @property
    def conformance(self) -> bytes:
        """What was said of the site's release paths at the last roll call; empty before, and without noise."""
        return self._read("conformance")

    @property
    def units(self) -> int | None:
        """Training units that the run's plan was priced for; ``None`` before."""
        text = self._read("units")
        return int(text) if text else None

    def admit(self, invitation: bytes, units: int, number: int) -> None:
        """Writes down what was let pass, and under which number Flower runs it now. Raises: ConfigError: It cannot."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be made: {error.strerror or error}") from error
        self._folder.write("invitation", invitation)
        self._folder.write("units", str(units).encode())
        node = str(number).encode()
        for other in self.path.parent.glob("*/node"):  # a number stands for one run, whatever the server says
            if other.parent != self.path and read_file(other, limit=64) == node:
                other.unlink(missing_ok=True)
        self._folder.write("node", node)

    def tested(self, conformance: bytes) -> None:
        """Writes down what is about to be said of the site's release paths. Raises: ConfigError: It cannot."""
        self._folder.write("conformance", conformance)

    def close(self) -> None:
        """Ends the run for this site: no further attempt is answered, only that it is over."""
        self._folder.write("closed", b"")

    def save(self, state: RecordDict) -> None:
        """Writes down what the app remembers."""
        records = {name: dict(record) for name, record in state.items() if isinstance(record, ConfigRecord)}
        self._folder.write("state", dumps(records))

    def restore(self, state: RecordDict) -> None:
        """Gives the app back what it remembered and does not remember now: another process, or a resumed run."""
        data = self._read("state")
        saved: Mapping[str, Mapping[str, Any]] = loads(data, limit=_MOST_BYTES) if data else {}
        for name, record in saved.items():
            if name not in state:
                state[name] = ConfigRecord(dict(record))

    def sent(self, payload: Sent) -> None:
        """Writes down a payload before it leaves."""
        path = self.path / "egress.jsonl"
        try:
            with path.open("ab") as file:
                file.write(egress.line(self.name, payload))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

    @property
    def egress(self) -> tuple[Sent, ...]:
        """Every payload of this run that was handed to the transport."""
        return tuple(egress.read(self._read("egress.jsonl")).get(self.name, ()))

    def keep(self, name: str, data: bytes) -> None:
        """Writes down an outcome, such as the model or its score here."""
        self._folder.write(name, data)

    def _read(self, name: str) -> bytes:
        path = self.path / name
        return read_file(path, limit=_MOST_BYTES) if path.exists() else b""
