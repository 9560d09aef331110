"""The files that a report rests on, as they lie beside it in a run folder or were named one by one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from privacy.audit.approval import CHARTER_FILE, MAX_CHARTERS_BYTES
from privacy.audit.canary_file import CANARIES_FILE, MAX_CANARIES_BYTES
from privacy.audit.ledger_chain import LEDGERS_FILE, MAX_LEDGERS_BYTES
from privacy.audit.site_statement import MAX_STATEMENTS_BYTES, STATEMENTS_FILE
from privacy.audit.transcript import MAX_TRANSCRIPT_BYTES, TRANSCRIPT_FILE
from privacy.store.run_folder import MODEL_FILE, read_file, sha256_of

FILES = {
    "transcript": (TRANSCRIPT_FILE, MAX_TRANSCRIPT_BYTES),
    "charters": (CHARTER_FILE, MAX_CHARTERS_BYTES),
    "statements": (STATEMENTS_FILE, MAX_STATEMENTS_BYTES),
    "ledgers": (LEDGERS_FILE, MAX_LEDGERS_BYTES),
    "canaries": (CANARIES_FILE, MAX_CANARIES_BYTES),
}
"""By attribute of ``AtHand``: where it lies beside a report, and the largest size that is read."""


@dataclass(frozen=True)
class AtHand:
    """What ``privacy.audit.verify.verify`` takes beside a report; ``None`` is what is not at hand. Untrusted."""

    model_sha256: str | None
    transcript: bytes | None = field(repr=False)
    charters: bytes | None = field(repr=False)
    statements: bytes | None = field(repr=False)
    ledgers: bytes | None = field(repr=False)
    canaries: bytes | None = field(repr=False)

    @classmethod
    def beside(cls, report: Path, named: Mapping[str, Path | None] | None = None) -> "AtHand":
        """Reads what is there.

        Args:
          report: The report's file; what was not named is looked for beside it.
          named: Files by the names of the attributes, and ``model``.

        Raises: ConfigError: A file that was named is not there, or one is too large or cannot be read.
        """
        chosen = {name: path for name, path in (named or {}).items() if path is not None}
        model = chosen.get("model") or _there(report.parent / MODEL_FILE)
        found: dict[str, bytes | None] = {}
        for name, (usual, limit) in FILES.items():
            path = chosen.get(name) or _there(report.parent / usual)
            found[name] = None if path is None else read_file(path, limit=limit)
        return cls(model_sha256=None if model is None else sha256_of(model), **found)


def _there(path: Path) -> Path | None:
    return path if path.exists() else None
