"""What a site has seen of the server's log, on disk: it is never shown less, nor another history, without noticing."""

from dataclasses import dataclass
from pathlib import Path

from privacy.audit.checkpoint import NoteKey, open_checkpoint
from privacy.audit.witness import Witness
from privacy.errors import ConfigError, VerificationError
from privacy.store.run_folder import RunFolder, read_file
from privacy.store.site_folder import WITNESS_FILE


@dataclass(frozen=True)
class ServerLog:
    """The server's log as one site witnesses it.

    Attributes:
      folder: The site's.
      key: The log's name and key, from the charter.
    """

    folder: Path
    key: NoteKey

    @property
    def note(self) -> bytes:
        """The last checkpoint that was accepted, a signed note; empty before the first."""
        path = self.folder / WITNESS_FILE
        return read_file(path, limit=2**20) if path.exists() else b""

    @property
    def seen(self) -> int:
        """How many entries were seen. Raises: ConfigError, VerificationError: The file is not what was written."""
        note = self.note
        return open_checkpoint(note, self.key).size if note else 0

    def accept(self, growths: tuple[bytes, ...]) -> None:
        """Takes in what the server says of its log's growth, durably, before anything is done about its message.

        Args:
          growths: As ``Log.growth`` returns them, one for each size that the server thinks this site may have seen.

        Raises: VerificationError: None continues what was seen: the log forked, went back, or was not shown.
        """
        note = self.note
        witness = Witness(self.key.name, self.key, open_checkpoint(note, self.key) if note else None)
        for growth in growths:
            try:
                witness.accept(growth)
            except ConfigError:
                continue  # about another size than was seen here
            RunFolder(self.folder).write(WITNESS_FILE, growth.partition(b"\n\n")[2])
            return
        raise VerificationError(f"the server does not show how its log grew since {self.seen} entries")
