"""The claim ``audit.membership``: can the finished model tell records that trained it from records kept back?

Every threshold's counts are in the claim. Beside each rate of true positives stands its Clopper-Pearson interval and
the most that differential privacy allows. The verdict asks more: the interval of *both* rates, at a level shared among
all points of all sites, has to clear the ceiling.

Read with care: the records of one site stand and fall together with one model, so the intervals understate doubt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from privacy.attacks import membership
from privacy.audit.measured import bounds
from privacy.audit.statement import Statement

MEMBERSHIP = "audit.membership"

FALSE_RATES = ("0.0100", "0.0500", "0.1000", "0.2500")
"""Rates of false positives at which true ones are listed, fixed beforehand."""

_CONTROL = "control"
_ROUNDING = Decimal("0.0001")


@dataclass(frozen=True)
class Compared:
    """What an attacker thinks of records; high means "trained on".

    Attributes:
      members: Of those that were, shape ``(n,)``, at least one. Secret: only counts enter the claim.
      others: Of those that were kept back, shape ``(k,)``, likewise.
    """

    members: npt.NDArray[np.float64]
    others: npt.NDArray[np.float64]


def membership_claim(
    sites: Mapping[str, Compared], control: Compared, *, epsilons: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Builds the claim.

    Args:
      sites: Under the delivered model; at least one.
      control: Under a model that was trained to remember.
      epsilons: ``Statement.epsilons`` of the run: ceilings follow from them.

    Raises: ValueError: Nobody to compare, or a score that is no number.
    """
    claim = {
        "id": MEMBERSHIP,
        "kind": "measured",
        "alpha": str(bounds.ALPHA),
        "sites": [
            _entry(site, membership.roc(one.members, one.others), _promise(site, epsilons))
            for site, one in sites.items()
        ],
        "control": _entry(_CONTROL, membership.roc(control.members, control.others), (None, None)),
    }
    return {**claim, "verdict": verdict(claim)}


def problems(claim: dict[str, Any], report: Statement) -> Iterator[str]:
    """Yields what does not follow: rates and intervals from counts, ceilings from the run's own claims."""
    if Decimal(claim["alpha"]) != bounds.ALPHA:
        yield f"audits are made at alpha {bounds.ALPHA}, not {claim['alpha']}"
    known = {entry["site"] for entry in report.predicate["egress"]}
    listed = [entry["who"] for entry in claim["sites"]]
    if len(set(listed)) != len(listed) or not set(listed) <= known:
        yield "a site is attacked twice, or is none of this run"
    for entry in [*claim["sites"], claim["control"]]:
        found = list(_miscounted(entry))
        if not found:
            promised = (None, None) if entry is claim["control"] else _promise(entry["who"], report.epsilons)
            found = list(_differences(entry, _entry(entry["who"], _counts(entry), promised)))
        yield from (f"{entry['who']}: {problem}" for problem in found)
        if found:
            return
    if claim["verdict"] != verdict(claim):
        yield f"the verdict is '{verdict(claim)}' by the counts, not '{claim['verdict']}'"


def verdict(claim: dict[str, Any]) -> bounds.Verdict:
    """Returns whether an interval clears its ceiling anywhere, and whether the control beats a coin."""
    level = float(bounds.ALPHA) / (2 * len(FALSE_RATES) * len(claim["sites"]))
    exceeded = any(_clears(entry, level) for entry in claim["sites"] if entry["epsilon"] is not None)
    fired = _clears({**claim["control"], "epsilon": "0", "delta": "0"}, float(bounds.ALPHA) / (2 * len(FALSE_RATES)))
    return bounds.judged(exceeded=exceeded, fired=fired)


def summary(claim: dict[str, Any]) -> str:
    """Returns the line about a claim whose numbers follow."""
    highest = max(claim["sites"], key=lambda entry: Decimal(entry["auc"]))
    text = (
        f"loss attack on the records of {len(claim['sites'])} sites: area under the curve at most {highest['auc']} "
        f"({highest['who']}; 0.5 is guessing); of a model trained to remember {claim['control']['auc']}"
    )
    promised = [entry for entry in claim["sites"] if entry["epsilon"] is not None]
    return text + ("; held against the ceiling that epsilon and delta set" if promised else "; no ceiling is promised")


def _entry(who: str, counts: membership.Counts, promised: tuple[str, str] | tuple[None, None]) -> dict[str, Any]:
    others, members = counts[-1]
    epsilon, delta = promised
    points = []
    for rate in FALSE_RATES:
        _false, true = membership.tpr_at(float(rate), counts)
        low, high = membership.clopper_pearson(true, members, float(bounds.ALPHA))
        ceiling = (
            None if epsilon is None else _score(membership.dp_ceiling(float(rate), float(epsilon), float(delta or 0)))
        )
        points.append(
            {"fpr": rate, "tpr": _score(true / members), "low": _score(low), "high": _score(high), "ceiling": ceiling}
        )
    return {
        "who": who,
        "members": members,
        "others": others,
        "epsilon": epsilon,
        "delta": delta,
        "auc": _score(membership.auc(counts)),
        "roc": [list(point) for point in counts],
        "points": points,
    }


def _promise(site: str, epsilons: Sequence[dict[str, Any]]) -> tuple[str, str] | tuple[None, None]:
    """Returns epsilon and delta of the strongest claim that covers a site's records, noise at the server included.

    Noise for whole sites covers a record at the price of replacing a site, see `formal.of_model`.
    """
    made = [
        (entry["epsilon_replace_one" if claim["unit"] == "site" else "epsilon"], claim["delta"])
        for claim in epsilons
        for entry in claim["sites"]
        if entry["site"] == site or claim["placement"] == "central"
    ]
    priced = [(epsilon, delta) for epsilon, delta in made if epsilon is not None]
    return min(priced, key=lambda one: Decimal(one[0]), default=(None, None))


def _clears(entry: dict[str, Any], level: float) -> bool:
    """Says whether a rate of true positives clears the ceiling; wrong with probability ``2 level`` at each point."""
    counts = _counts(entry)
    for rate in FALSE_RATES:
        false, true = membership.tpr_at(float(rate), counts)
        low, _ = membership.clopper_pearson(true, entry["members"], 2 * level)
        _, high = membership.clopper_pearson(false, entry["others"], 2 * level)
        if low > membership.dp_ceiling(high, float(entry["epsilon"]), float(entry["delta"])):
            return True
    return False


def _counts(entry: dict[str, Any]) -> membership.Counts:
    return tuple((false, true) for false, true in entry["roc"])


def _miscounted(entry: dict[str, Any]) -> Iterator[str]:
    counts = _counts(entry)
    rising = all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(counts))
    if not counts or not rising or counts[-1] != (entry["others"], entry["members"]):
        yield "the counts at the thresholds do not rise to all records"


def _differences(entry: dict[str, Any], computed: dict[str, Any]) -> Iterator[str]:
    if (entry["epsilon"], entry["delta"]) != (computed["epsilon"], computed["delta"]):
        yield "epsilon and delta are not those of the run's claims"
    scores = [(entry["auc"], computed["auc"])]
    if [point["fpr"] for point in entry["points"]] != list(FALSE_RATES):
        yield "the rates of false positives are not those that were fixed beforehand"
        return
    for point, again in zip(entry["points"], computed["points"], strict=True):
        scores += [(point[name], again[name]) for name in ("tpr", "low", "high", "ceiling")]
    if not all(_same(claimed, again) for claimed, again in scores):
        yield "rates, intervals or ceilings do not follow from the counts"


def _same(claimed: str | None, computed: str | None) -> bool:
    if claimed is None or computed is None:
        return claimed is computed
    return abs(Decimal(claimed) - Decimal(computed)) <= _ROUNDING


def _score(value: float) -> str:
    return f"{value:.4f}"
