"""The files by which a run folder shows its report: the envelope, the page drawn from it, the keys that it lists."""

import base64

from privacy.audit import report
from privacy.audit.html import page
from privacy.keys.signing import COSIGNER
from privacy.store.run_folder import PAGE_FILE, REPORT_FILE, TRUST_FILE, RunFolder


def write(folder: RunFolder, signed: bytes) -> None:
    """Writes a signed report, whole files in place of those before.

    Args:
      folder: Of the run.
      signed: The bytes of ``report.dsse.json``; no signature is checked.

    Raises: ConfigError: Not a report, or the folder cannot be written.
    """
    drawn, keys = page.render(signed), report.trusted_keys(signed)
    folder.write(REPORT_FILE, signed)
    folder.write(PAGE_FILE, drawn)
    folder.write(TRUST_FILE, keys)


def countersigned(folder: RunFolder, signed: bytes, public_key: bytes) -> None:
    """Writes a report to which somebody added a signature, and their key to the keys that were there.

    Args:
      folder: Of the run.
      signed: The report with that signature.
      public_key: Raw, whose signature it is.

    Raises: ConfigError: The folder cannot be read or written.
    """
    entry, keys = base64.b64encode(public_key) + f" {COSIGNER}".encode(), folder.read(TRUST_FILE)
    folder.write(REPORT_FILE, signed)
    if entry not in keys.splitlines():
        folder.write(TRUST_FILE, keys + b"# countersigned\n" + entry + b"\n")
