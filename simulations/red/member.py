"""What the kit is made of: ways to break a run, to bend its report, or to ask for what must be refused."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from privacy.audit.attack_claims import Evidence
from simulations.red.papers import Papers

By = Literal["conformance", "site", "server", "verify", "audit"]
"""Who finds it: a site's tests of its own release paths, a site, the server, the verifier, or the audit."""


@dataclass(frozen=True)
class Rejected:
    """Found out; ``why`` is one plain line."""

    by: By
    why: str


@dataclass(frozen=True)
class Accepted:
    """Nobody objected."""


Outcome: TypeAlias = Rejected | Accepted


@dataclass(frozen=True)
class BrokenRun:
    """Production code is replaced for the length of a run, and of its audit.

    Attributes:
      says: One line about what is wrong.
      apply: Replaces it, and puts it back.
      options: Of the run, other than the kit's own.
      silenced: The sites say of their release paths what correct code found, so that the run goes on.
    """

    name: str
    says: str
    apply: Callable[[], AbstractContextManager[None]]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    silenced: bool = False


@dataclass(frozen=True)
class BentReport:
    """An honest run's report and evidence, altered and signed again by a trusted key.

    Attributes:
      bend: Alters the papers in place.
      options: Of the run, other than the kit's own.
    """

    name: str
    says: str
    bend: Callable[[Papers], None]
    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class BentAudit:
    """An honest one-run audit, altered before an auditor whose key is trusted signs it.

    Attributes:
      bend: Returns the claim and the scores that are signed; may alter what it is given.
    """

    name: str
    says: str
    bend: Callable[[Evidence], Evidence]


@dataclass(frozen=True)
class Refused:
    """Something that production code refuses when it is asked for.

    Attributes:
      ask: Given an empty folder; raises a ``FederationError``.
    """

    name: str
    says: str
    ask: Callable[[Path], None]


Member: TypeAlias = BrokenRun | BentReport | BentAudit | Refused
