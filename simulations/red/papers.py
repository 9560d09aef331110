"""What a run leaves for a verifier: the report's statement and the evidence beside it."""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from privacy.audit import envelope, report, statement
from privacy.audit.canary_file import CANARIES_FILE
from privacy.audit.ledger_chain import LEDGERS_FILE
from privacy.audit.transcript import TRANSCRIPT_FILE
from privacy.audit.verify import Verdict, verify
from privacy.keys.signing import SigningKey
from privacy.store.run_folder import REPORT_FILE

EVIDENCE = {"transcript": TRANSCRIPT_FILE, "ledgers": LEDGERS_FILE, "canaries": CANARIES_FILE}
"""Files that the verifier reads beside a report, by what it calls them."""


@dataclass
class Papers:
    """An unsigned report, to be altered, and the files beside it; all of it is public.

    Attributes:
      body: The statement's predicate.
      model_sha256: Of the delivered model.
      files: What is there of ``EVIDENCE``.
    """

    body: dict[str, Any]
    model_sha256: str
    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Papers":
        """Reads a run folder."""
        told = statement.decode(envelope.decode((folder / REPORT_FILE).read_bytes()).payload)
        return cls(told.predicate, told.subject_sha256, evidence_in(folder))

    def claim(self, claim_id: str) -> dict[str, Any]:
        """Returns a claim, to be altered."""
        found: dict[str, Any] = next(one for one in self.body["claims"] if one["id"] == claim_id)
        return found

    def drop(self, claim_id: str) -> None:
        """Leaves a claim out, as if it had never been made."""
        self.body["claims"].remove(self.claim(claim_id))

    def signed(self, key: SigningKey) -> bytes:
        """Returns the report as a signer that lies would sign it: nothing is checked but its form."""
        self.body["signer"] = report.signer_entry(key, self.body["signer"]["role"])
        return envelope.sign(statement.encode(self.body, self.model_sha256), key)


def evidence_in(folder: Path) -> dict[str, bytes]:
    """Returns the files of ``EVIDENCE`` that a run folder holds."""
    paths = {name: folder / file for name, file in EVIDENCE.items()}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def verified(
    signed: bytes,
    trusted: Collection[bytes],
    model_sha256: str,
    files: dict[str, bytes],
    *,
    auditors: Collection[bytes] = (),
) -> Verdict:
    """Verifies a report with all that is at hand, by a reader's trusted keys; raises as ``verify``."""
    return verify(
        signed,
        trusted=trusted,
        auditors=auditors,
        model_sha256=model_sha256,
        transcript=files.get("transcript"),
        ledgers=files.get("ledgers"),
        canaries=files.get("canaries"),
    )
