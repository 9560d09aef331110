"""Identity keys of a simulated federation: one file a site, in the run folder, for as long as the run lasts.

At real sites each key is made where it is used and the officers sign the roster; here one program plays everybody, and
the processes that play sites find their own key and the pinned roster where a real site would: on their disk.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from privacy.errors import ConfigError
from privacy.keys.signing import SigningKey
from privacy.secagg.context import Roster
from privacy.store.run_folder import read_file
from strategies.task import SiteId

_SEED_BYTES = 32


COORDINATOR = "coordinator"
"""Id of the server in the charter of a simulation."""


class Identities:
    """Keys under ``folder/keys``: ``SITE.key`` (mode 0600, secret) and ``SITE.pub`` in a directory of mode 0700.

    The coordinator's own is in ``server/`` there: a site may have its name.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "keys"
        self._server = self._path / "server"

    @classmethod
    def create(
        cls, folder: Path, sites: Sequence[SiteId], *, entropy: Callable[[int], bytes] = secrets.token_bytes
    ) -> "Identities":
        """Draws a key for each site. Raises: ConfigError: The folder cannot be written."""
        made = cls(folder)
        try:
            made._path.mkdir(mode=0o700)
            made._server.mkdir(mode=0o700)
            for path in (made._server / COORDINATOR, *(made._path / site for site in sites)):
                seed = entropy(_SEED_BYTES)
                file = os.open(f"{path}.key", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(file, "wb") as opened:
                    opened.write(seed)
                Path(f"{path}.pub").write_bytes(SigningKey(seed).public_key)
        except OSError as error:
            raise ConfigError(f"{made._path} cannot be written: {error.strerror or error}") from error
        return made

    def key(self, site: SiteId) -> SigningKey:
        """Returns a site's identity key. Raises: ConfigError: It is not there."""
        return SigningKey(read_file(self._path / f"{site}.key", limit=_SEED_BYTES))

    @property
    def coordinator(self) -> SigningKey:
        """The coordinator's identity key, which signs invitations. Raises: ConfigError: It is not there."""
        return SigningKey(read_file(self._server / f"{COORDINATOR}.key", limit=_SEED_BYTES))

    @property
    def roster(self) -> Roster:
        """Public keys, as every site pins them. Raises: ConfigError: There are none."""
        found = {path.stem: read_file(path, limit=_SEED_BYTES) for path in sorted(self._path.glob("*.pub"))}
        if not found:
            raise ConfigError(f"{self._path} holds no identity keys: without them nothing is aggregated securely")
        return Roster(1, found)

    def erase(self) -> None:
        """Removes every key; what they signed stays checkable, since the transcript holds the public ones."""
        shutil.rmtree(self._path, ignore_errors=True)
