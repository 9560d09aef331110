"""What a site or a server says of its own release paths at the start of a run, as canonical JSON; and who may say so.

A statement is the list of a report's entries without the name of who made them: empty bytes where there is no path.
"""

from collections.abc import Sequence
from typing import Any

from privacy.audit import canonical, schemas
from privacy.conformance.results import FAMILY_ERROR
from privacy.conformance.sums import NoisedSum
from privacy.conformance.tests import Conformance, conformance_of
from privacy.dp.noise import Entropy
from privacy.dp.plan import SitePlan
from privacy.errors import ConfigError, PrivacyError

MAX_BYTES = 64 * 1024
"""Largest statement that is read."""


def stated(found: Sequence[Conformance], *, who: str) -> bytes:
    """Returns the statement.

    Args:
      found: One for each path.
      who: Whose paths they are, for the message.

    Raises: PrivacyError: A test failed, or a defect made on purpose was not found: then nothing may be released.
    """
    for each in found:
        for result in each.failed:
            raise PrivacyError(
                f"{who} takes no part: its {each.placement} noise fails {result.test}, {result.name}",
                hint="By chance a correct path fails once in 10,000 starts. Start again; what fails twice is wrong.",
            )
        missed = [defect for defect, fired in each.controls if not fired]
        if missed:
            raise PrivacyError(f"{who} takes no part: its tests of {each.placement} noise do not find {missed[0]}")
    return canonical.dumps([each.to_json() for each in found]) if found else b""


def read(data: bytes, *, who: str) -> list[dict[str, Any]]:
    """Reads somebody's statement, as the entries of a report.

    Args:
      data: Untrusted.
      who: Whose it is.

    Raises: ConfigError: Not a statement, or too long a one.
    """
    if not data:
        return []
    if len(data) > MAX_BYTES:
        raise ConfigError(f"what {who} says of its release paths is longer than {MAX_BYTES} bytes")
    entries = canonical.loads(data, what="a statement of conformance")
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        raise ConfigError(f"what {who} says of its release paths is no list of them")
    named = [{**each, "site": who} for each in entries]
    schemas.check("privacy-audit-v1", claim(named), definition="conformance")
    return named


def check(data: bytes, *, who: str) -> None:
    """Checks a statement of somebody who should not have made it unless everything passed.

    Raises:
      ConfigError: Not a statement.
      PrivacyError: It says that a test failed, or that a defect was not found.
    """
    for entry in read(data, who=who):
        if not all(each["passed"] for each in entry["tests"]) or not all(each["fired"] for each in entry["controls"]):
            raise PrivacyError(f"{who} says itself that a release path of its own does not conform")


def claim(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the claim of a report that holds these entries."""
    error = f"{FAMILY_ERROR:.4f}"
    return {"id": "conformance.release", "kind": "measured", "family_error": error, "sites": list(entries)}


def check_server(plan: SitePlan, entropy: Entropy) -> bytes:
    """Tests the path whose noise the server adds, and returns the server's statement; at the start of a run.

    Raises: PrivacyError: It does not conform: the run may not begin.
    """
    found = conformance_of(lambda dimension, n_units: NoisedSum(plan, dimension, n_units), entropy)
    return stated([found], who="the server")
