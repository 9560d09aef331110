"""``python -m simulations.bench.audit``: the one-run audit on the production paths, correct and broken, seed by seed.

Every audit has 4,096 canaries and a formal epsilon of 4.38 at delta 1e-5, which is noise of one clip in the release.
Coins and noise of an audit follow from its number, so the same numbers come out again. Nothing here passes or fails:
the soak run holds the rows to their bars.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from hashlib import sha256
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Any

from clients.one_run import CANARIES, audit_path
from privacy.audit.attack_claims import one_run_claim
from privacy.dp.events import FULL_BATCH
from privacy.dp.noise import Entropy
from privacy.dp.plan import DistributedPlan, PrivacyPlan, RecordPlan, SitePlan, Unit
from privacy.dp.skellam import DistributedNoise

SCHEMA = "collegium/bench-audit/v1"
_CLIP = Decimal("0.7")
_SHARED: dict[str, Any] = {
    "clip": _CLIP,
    "noise_multiplier": Decimal(4),  # over 16 executions: as much as one release with noise of one clip
    "max_attempts": 4,
    "target": Decimal(10),
    "delta": Decimal("0.001"),
}
_RECORD = RecordPlan(**_SHARED, steps_per_attempt=4, sampling=FULL_BATCH, n_records=100)
_SITE = SitePlan(**{**_SHARED, "max_attempts": 16}, unit=Unit.SITE, steps_per_attempt=1)
_DISTRIBUTED = DistributedPlan(
    **{**_SHARED, "max_attempts": 16},
    unit=Unit.SITE,
    steps_per_attempt=1,
    noise=DistributedNoise(_CLIP, Decimal(4), counted=3, dimension=14),
    colluders=1,
)


@dataclass(frozen=True)
class Subject:
    """A release path, and how many audits it gets."""

    plan: PrivacyPlan
    audits: int
    floating: bool = False


SUBJECTS = {
    "record, integer path": Subject(_RECORD, 40),
    "record, float path": Subject(_RECORD, 40, floating=True),
    "site": Subject(_SITE, 10),
    "distributed, unit site": Subject(_DISTRIBUTED, 10),
    "distributed, unit record": Subject(replace(_DISTRIBUTED, unit=Unit.RECORD), 10),
}


@dataclass(frozen=True)
class Row:
    """One thing to see on one path.

    Attributes:
      found: In how many audits it was seen; or a mean over them.
      bar: Least wanted, or ``None``.
    """

    path: str
    what: str
    audits: int
    found: float
    bar: float | None

    @property
    def holds(self) -> bool | None:
        """Whether the bar is reached; ``None`` where there is none."""
        return None if self.bar is None else self.found >= self.bar


@dataclass(frozen=True)
class Bounds:
    """What the claim says of the one path that was audited."""

    path: dict[str, Any]

    def of(self, bound: str, broken: str | None = None) -> Decimal:
        """Returns a lower bound of the correct path or of a broken copy; 0 where there is none."""
        return Decimal(self._measurement(broken)["lower"][bound] or 0)

    def exceeds(self, *bounds: str, broken: str | None = None) -> bool:
        """Says whether any of these bounds is above the formal value."""
        return max(self.of(bound, broken) for bound in bounds) > Decimal(self.path["formal"])

    def repeats(self, broken: str) -> bool:
        """Says whether a second release had the same noise."""
        return bool(self._measurement(broken)["repeated"])

    def _measurement(self, broken: str | None) -> dict[str, Any]:
        places = {control["defect"]: control["measurement"] for control in self.path["controls"]}
        measurement: dict[str, Any] = self.path["measurement"] if broken is None else places[broken]
        return measurement


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints one JSON row a thing to see, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-audit.json")
    parser.add_argument("--quick", action="store_true", help="one small audit a path: shows that it runs, no more")
    chosen = parser.parse_args(arguments)
    load, rows = [os.getloadavg()], list[dict[str, Any]]()
    for name, subject in SUBJECTS.items():
        audits, canaries = (1, 64) if chosen.quick else (subject.audits, CANARIES)
        for row in measure(name, subject, audits=audits, canaries=canaries):
            rows.append({**asdict(row), "holds": None if chosen.quick else row.holds})
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
    load.append(os.getloadavg())
    machine = {"processors": os.cpu_count(), "python": platform.python_version(), "load": load}
    machine |= {package: version(package) for package in ("numpy", "opacus", "scipy", "torch")}
    result = {"schema": SCHEMA, "quick": chosen.quick, "machine": machine, "rows": rows}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"written: {chosen.out}\n")


def measure(name: str, subject: Subject, *, audits: int, canaries: int = CANARIES) -> list[Row]:
    """Audits a path as often as asked for, with the broken copies each time, and counts."""
    start = time.process_time()
    found = [_audited(subject, _keys(f"{name}, audit {number}"), canaries) for number in range(audits)]
    seconds = (time.process_time() - start) / audits

    def row(what: str, seen: float, bar: float | None) -> Row:
        return Row(name, what, audits, seen, bar)

    def seen(what: str, holds: Callable[[Bounds], bool], wanted: int, of: int) -> Row:
        return row(what, sum(map(holds, found)), wanted * audits // of)

    def mean(bound: str) -> float:
        return statistics.fmean(float(one.of(bound)) for one in found)

    def halved(one: Bounds) -> bool:
        return all(one.exceeds(bound, broken="noise halved") for bound in ("fdp", "pair_999"))

    return [
        seen("Steinke and f-DP at most formal", lambda one: not one.exceeds("steinke", "fdp"), 38, 40),
        seen("Gaussian pair, 99.9 %, at most formal", lambda one: not one.exceeds("pair_999"), 1, 1),
        row("Steinke, mean", mean("steinke"), None),
        row("f-DP, mean", mean("fdp"), 1.5),
        row("Gaussian pair, 95 %, mean", mean("pair"), 3.6),
        seen("noise halved: f-DP and pair, 99.9 %, above formal", halved, 37, 40),
        seen("noise off: Steinke above formal", lambda one: one.exceeds("steinke", broken="noise off"), 1, 1),
        seen("clipping off: Steinke above formal", lambda one: one.exceeds("steinke", broken="clipping off"), 1, 1),
        seen("seed fixed: noise repeated", lambda one: one.repeats("seed fixed"), 1, 1),
        seen("verdict: no violation", lambda one: one.path["verdict"] == "no violation", 38, 40),
        row("CPU seconds of an audit", seconds, None),
    ]


def _audited(subject: Subject, keys: Entropy, canaries: int) -> Bounds:
    seed = keys(32)
    audit = audit_path(subject.plan, seed=seed, entropy=keys, canaries=canaries, floating=subject.floating)
    return Bounds(one_run_claim([audit], seed=seed).claim["paths"][0])


def _keys(audit: str) -> Entropy:
    """Returns keys of at most 32 bytes that differ from call to call, and from audit to audit."""
    calls = count()
    return lambda n_bytes: sha256(f"{audit}, key {next(calls)}".encode()).digest()[:n_bytes]


if __name__ == "__main__":
    main()
