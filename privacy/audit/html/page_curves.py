"""Epsilon over the rounds and over delta, as the page draws them for the holder of whom a claim promises least.

Both are computed from the listed events by the accountant of the claim; a claim that cannot be priced has neither.
"""

import math
from decimal import Decimal
from itertools import accumulate
from typing import Any

from privacy.audit import pricing
from privacy.audit.html import charts_audit
from privacy.audit.statement import Statement
from privacy.dp.accounting import round_up
from privacy.dp.events import Event, GaussianEvent, SamplingType
from privacy.errors import FederationError

DELTAS = tuple(Decimal(1).scaleb(-power) for power in range(1, 11))
_PARTS, _FEW_PARTS = 6, 2  # sampled batches cost the accountant a second each
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def view(report: Statement, claim: dict[str, Any]) -> dict[str, Any]:
    """Returns the charts of one of ``report.epsilons``; each is None where it cannot be computed.

    Args:
      report: Whose rounds say when what was spent.
      claim: Fits the schema.
    """
    worst = max(claim["sites"], key=lambda entry: Decimal(entry["epsilon"]))
    try:
        events = tuple(pricing.events_of(worst))
        return {
            "holder": worst["site"],
            "course": _course(report.predicate["rounds"], claim, worst, events),
            "tradeoff": _tradeoff(claim, worst, events),
        }
    except FederationError:  # said by the check of the claim itself
        return {"holder": worst["site"], "course": None, "tradeoff": None}


def _course(
    rounds: list[dict[str, Any]], claim: dict[str, Any], worst: dict[str, Any], events: tuple[Event, ...]
) -> dict[str, Any] | None:
    """An attempt that failed may have been paid for or not, so what was spent by the end of a round is an upper end."""
    if len(events) != 1 or len(rounds) < 2:
        return None
    (event,), each, last = events, pricing.per_attempt(claim, worst), len(rounds)
    spent = [min(event.count, each * tried) for tried in accumulate(entry["attempts"] for entry in rounds)]
    cheap = not isinstance(event, GaussianEvent) or event.sampling.type is SamplingType.FULL
    chosen = _between(last, _PARTS if cheap else _FEW_PARTS)
    deltas, by = (Decimal(claim["delta"]),), claim["accountant"]
    prices = [pricing.at_deltas(worst["site"], (event.times(spent[n - 1]),), deltas, by)[0] for n in chosen]
    points = [(number, value) for number, value in zip(chosen, prices, strict=True) if math.isfinite(value)]
    points.append((last, float(worst["epsilon"])))
    target = claim["target_epsilon"]
    figures = [f"round {number}: ε ≤ {round_up(value)}" for number, value in points]
    chart = charts_audit.line(
        charts_audit.Line(
            points=((0.0, 0.0), *((number / last, value) for number, value in points)),
            x_labels=(*((number / last, str(number)) for number in chosen), (1.0, str(last))),
            limit=(float(target), f"budget of this run: {target}"),
            marked=(1.0, float(worst["epsilon"]), worst["epsilon"]),
        ),
        name=f"course-{claim['placement']}",
        title=f"Epsilon of {worst['site']} over the rounds, against the run's budget",
        description=f"{'; '.join(figures)}; budget {target}.",
    )
    return {"chart": chart, "figures": figures}


def _tradeoff(claim: dict[str, Any], worst: dict[str, Any], events: tuple[Event, ...]) -> dict[str, Any] | None:
    if not events:
        return None
    prices = pricing.at_deltas(worst["site"], events, DELTAS, claim["accountant"])
    points = [(delta, value) for delta, value in zip(DELTAS, prices, strict=True) if math.isfinite(value)]
    figures = [f"δ = {_power(delta)}: ε ≤ {round_up(value)}" for delta, value in points]
    claimed = (_place(Decimal(claim["delta"])), float(worst["epsilon"]), f"claimed: ε ≤ {worst['epsilon']}")
    chart = charts_audit.line(
        charts_audit.Line(
            points=tuple((_place(delta), value) for delta, value in points),
            x_labels=tuple((_place(delta), _power(delta)) for delta in DELTAS[::3]),
            limit=None,
            marked=claimed,
        ),
        name=f"tradeoff-{claim['placement']}",
        title=f"Epsilon of {worst['site']} for other choices of delta",
        description="; ".join(figures) + ".",
    )
    return {"chart": chart, "figures": figures}


def _place(delta: Decimal) -> float:
    """Where a delta stands on the axis: its order of magnitude, from the smallest at 0 to the largest at 1."""
    low, high = DELTAS[-1].log10(), DELTAS[0].log10()
    return float(min(max((delta.log10() - low) / (high - low), Decimal(0)), Decimal(1)))


def _power(delta: Decimal) -> str:
    """Writes a power of ten."""
    return f"10{str(delta.adjusted()).translate(_RAISED)}"


def _between(last: int, parts: int) -> list[int]:
    """Returns the rounds that divide all of them evenly, the last one not among them."""
    return sorted({round(last * part / parts) for part in range(1, parts)} - {0, last})
