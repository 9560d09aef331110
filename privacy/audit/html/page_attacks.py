"""What attacks found, as the page tells it: lower bounds beside the formal value, each with its controls."""

import math
from collections.abc import Sequence
from decimal import Decimal
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from privacy.audit import words
from privacy.audit.html import charts_audit
from privacy.audit.html.charts_audit import BoundRow, Roc
from privacy.audit.html.tables import Column, Table
from privacy.audit.measured import bounds
from privacy.audit.measured.inversion import EXACT
from privacy.audit.statement import Statement

METHODS = {
    "pair": "two Gaussians, at 95 %: assumes the noise has the shape that was tested",
    "pair_999": "the same at 99.9 %, which decides",
    "fdp": "f-DP (Mahloujifar et al. 2025), at 95 %: among Gaussian curves",
    "steinke": "Steinke et al. 2023, at 95 %: assumes nothing of the noise",
}
"""Ways to a lower bound, from the sharpest to the most careful."""
_SHORT = {"pair": "Gaussians, 95 %", "pair_999": "Gaussians, 99.9 %", "fdp": "f-DP", "steinke": "Steinke"}
_BY_COUNTING = ("fdp", "steinke")
_CAP = Decimal(1000)

VERDICTS = {
    "no violation": "no violation",
    "violation": "VIOLATION",
    "inconclusive": "inconclusive",
}
VIEWS = {
    "guess": "guess, without seeing anything",
    "clear": "from the update in the clear",
    "masked": "from the masked update",
    "noised": "from the update with noise",
}
MOST_PANELS = 11
"""Sites whose curve is drawn, beside the control's; the table has all."""


def one_run(report: Statement) -> list[dict[str, Any]]:
    """Returns what the page shows of each path of ``audit.one_run``."""
    claim = report.claim("audit.one_run")
    return [] if claim is None else [_path(claim, path, index) for index, path in enumerate(claim["paths"])]


def _path(claim: dict[str, Any], path: dict[str, Any], index: int) -> dict[str, Any]:
    formal, delta = path["formal"], claim["delta"]
    rows = [("the code of the run", path["measurement"])]
    rows += [(one["defect"], one["measurement"]) for one in path["controls"]]
    return {
        "title": words.PLACEMENTS[path["placement"]],
        "canaries": words.number(claim["canaries"]),
        "formal": formal,
        "delta": delta,
        "verdict": VERDICTS[path["verdict"]],
        "silent": [one["defect"] for one in path["controls"] if not one["fired"]],
        "powerless": bounds.powerless(path["ceiling"], formal),
        "legend": _legend(METHODS),
        "chart": charts_audit.bounds(
            [BoundRow(label, _repeats(found), _bounds(found["lower"], METHODS)) for label, found in rows],
            formal=float(formal),
            label=f"formal value {formal}",
            name=f"one-run-{index}",
            title="Lower bounds of epsilon from canaries in one release",
            description="; ".join(f"{label}: {_told(found['lower'])}" for label, found in rows),
        ),
        "table": Table(
            f"Lower bounds of ε at δ = {delta}, rounded down; formal value {formal}",
            (Column("Release by", numeric=False), *(Column(_SHORT[name]) for name in METHODS),
             Column("Noise repeated", numeric=False), Column("Above the formal value", numeric=False)),
            tuple(
                (label, *(_bound(found["lower"][name]) for name in METHODS), "YES" if found["repeated"] else "no",
                 "YES" if _above(found["lower"], formal) else "no")
                for label, found in rows
            ),
        ),
    }  # fmt: skip


def _repeats(measurement: dict[str, Any]) -> str:
    return ", noise repeated" if measurement["repeated"] else ""


def _above(lower: dict[str, Any], formal: str) -> bool:
    """Says whether a bound that counts for the verdict exceeds the formal value: the 95 % one of two Gaussians not."""
    counted = [lower[name] for name in ("steinke", "fdp", "pair_999") if lower.get(name) is not None]
    return any(Decimal(value) > Decimal(formal) for value in counted)


def _bounds(lower: dict[str, Any], methods: Sequence[str] | dict[str, str]) -> tuple[tuple[str, float | None], ...]:
    return tuple((name, None if lower[name] is None else float(lower[name])) for name in methods)


def _bound(value: str | None) -> str:
    return "–" if value is None else f"{value} or more" if Decimal(value) >= _CAP else value


def _told(lower: dict[str, Any]) -> str:
    return ", ".join(f"{_SHORT[name]} {_bound(lower[name])}" for name in METHODS if lower.get(name) is not None)


def _legend(methods: Sequence[str] | dict[str, str]) -> list[dict[str, Any]]:
    return [{"mark": charts_audit.key(name), "words": METHODS[name]} for name in methods]


def black_box(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``audit.black_box``; nothing if there is no such claim."""
    claim = report.claim("audit.black_box")
    if claim is None:
        return None
    formal, delta = claim["formal"], claim["delta"]
    rows = [
        ("trained as in the run", claim["protected"]["lower"]),
        ("control", claim["control"]["lower"]),
        ("if every guess were right", claim["ceiling"]),
    ]
    return {
        "canaries": words.number(claim["canaries"]),
        "records": words.number(claim["records"]),
        "models": (claim["protected"]["model"], claim["control"]["model"]),
        "formal": formal,
        "verdict": VERDICTS[claim["verdict"]],
        "powerless": formal is not None and bounds.powerless(claim["ceiling"], formal),
        "legend": _legend(_BY_COUNTING),
        "chart": charts_audit.bounds(
            [BoundRow(label, "", _bounds(lower, _BY_COUNTING)) for label, lower in rows[:2]],
            formal=None if formal is None else float(formal),
            label=f"formal value {formal}",
            name="black-box",
            title="Lower bounds of epsilon from mislabelled canaries in the training data",
            description="; ".join(f"{label}: {_told(lower)}" for label, lower in rows),
        ),
        "table": Table(
            f"Lower bounds of ε at δ = {delta}, rounded down; {f'formal value {formal}' if formal else 'no promise'}",
            (Column("Model", numeric=False), *(Column(_SHORT[name]) for name in _BY_COUNTING)),
            tuple((label, *(_bound(lower[name]) for name in _BY_COUNTING)) for label, lower in rows),
        ),
    }


def membership(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``audit.membership``; nothing if there is no such claim."""
    claim = report.claim("audit.membership")
    if claim is None:
        return None
    everybody = [*claim["sites"], claim["control"]]
    drawn = [*claim["sites"][:MOST_PANELS], claim["control"]]
    return {
        "confidence": f"{100 * (1 - float(claim['alpha'])):.3g} %",
        "verdict": VERDICTS[claim["verdict"]],
        "bounded": any(one["epsilon"] is not None for one in claim["sites"]),
        "panels": [_panel(one, index, control=one is claim["control"]) for index, one in enumerate(drawn)],
        "table": Table(
            "How many members the attack finds at a given rate of wrong accusations",
            (Column("Whose records", numeric=False), Column("Members"), Column("Others"), Column("AUC"),
             Column("Wrongly accused"), Column("Found"), Column("Interval"), Column("DP allows at most")),
            tuple(
                (one["who"], one["members"], one["others"], f"{float(one['auc']):.3f}", _share(point["fpr"]),
                 _share(point["tpr"]), f"{_share(point['low'])} to {_share(point['high'])}",
                 "–" if point["ceiling"] is None else _share(point["ceiling"]))
                for one in everybody for point in one["points"]
            ),
        ),
    }  # fmt: skip


def _panel(one: dict[str, Any], index: int, *, control: bool) -> dict[str, Any]:
    points = [(min(false / one["others"], 1.0), min(true / one["members"], 1.0)) for false, true in one["roc"]]
    epsilon, auc = one["epsilon"], f"{float(one['auc']):.2f}"
    chart = charts_audit.roc(
        Roc(
            points=((0.0, 0.0), *points, (1.0, 1.0)),
            ceiling=ceiling(float(epsilon), float(one["delta"] or 0)) if epsilon is not None else (),
            intervals=tuple((float(p["fpr"]), float(p["low"]), float(p["high"])) for p in one["points"]),
        ),
        name=f"roc-{index}",
        title=f"Membership attack on {one['who']}",
        description=f"Area under the curve {one['auc']}, where 0.5 is guessing. "
        + "; ".join(f"{_share(p['tpr'])} found at {_share(p['fpr'])} wrongly accused" for p in one["points"]),
    )
    name = "control, a model that remembers" if control else one["who"]
    return {"name": name, "more": f"AUC {auc}", "chart": chart}


def ceiling(epsilon: float, delta: float) -> tuple[tuple[float, float], ...]:
    """Returns the corners of the largest curve that DP allows (Kairouz, Oh and Viswanath, ICML 2015, theorem 2.1)."""
    turn = (1 - delta) / (1 + math.exp(min(epsilon, 700.0)))
    return ((0.0, delta), (turn, 1 - turn), (1 - delta, 1.0), (1.0, 1.0))


def _share(value: str) -> str:
    return f"{100 * float(value):.3g} %"


def one_shot(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``audit.one_shot``; nothing if there is no such claim."""
    claim = report.claim("audit.one_shot")
    if claim is None:
        return None
    rows = [("as in the run", claim), ("control, without noise", claim["control"])]
    return {
        "canaries": words.number(claim["canaries"]),
        "dimension": words.number(claim["dimension"]),
        "formal": claim["formal"],
        "table": Table(
            f"Estimates of ε at δ = {claim['delta']}; formal value {claim['formal'] or 'none'}",
            (Column("Copy", numeric=False), Column("Mean cosine"), Column("Deviation"), Column("ε, estimate")),
            tuple(
                (name, f"{float(one['mean']):.3g}", f"{float(one['sd']):.3g}", _bound(one["estimate"]))
                for name, one in rows
            ),
        ),
    }  # fmt: skip


def inversion(report: Statement) -> dict[str, Any] | None:
    """Returns what the page shows of ``audit.inversion``; nothing if there is no such claim."""
    claim = report.claim("audit.inversion")
    if claim is None:
        return None
    table = claim["form"] == "table"
    views = [*claim["views"], claim["guess"]]
    record = {
        "name": "the record",
        "more": "",
        "chart": _picture(claim["record"], claim, "record", "The made-up record"),
    }
    return {
        "form": claim["form"],
        "verdict": VERDICTS[claim["verdict"]],
        "panels": [record, *(_view(one, claim) for one in views)],
        "table": _fields(claim, views) if table else _errors(views),
    }


def _view(one: dict[str, Any], claim: dict[str, Any]) -> dict[str, Any]:
    title = f"What a server would say, {VIEWS[one['view']]}"
    chart = _picture(one["values"], claim, one["view"], f"{title}: {_quality(one['mse'])}")
    return {"name": VIEWS[one["view"]], "more": _quality(one["mse"]), "chart": chart}


def _picture(values: Sequence[str], claim: dict[str, Any], name: str, description: str) -> Markup:
    numbers = [float(value) for value in values]
    width = claim["width"] if claim["form"] == "image" else len(numbers)
    return charts_audit.pixels(
        numbers, width, name=f"inversion-{name}", title="Values from 0, black, to 1, white", description=description
    )


def _quality(mse: str) -> str:
    """Says how near a reconstruction comes: peak signal to noise, for values between 0 and 1."""
    error = Decimal(mse)
    return "reconstructed" if error < EXACT else f"{-10 * math.log10(error):.1f} dB"


def _fields(claim: dict[str, Any], views: Sequence[dict[str, Any]]) -> Table:
    columns = (Column("Field", numeric=False), Column("The record"), *(Column(VIEWS[one["view"]]) for one in views))
    named = zip_longest(claim["fields"], claim["record"], *(one["values"] for one in views), fillvalue="")
    rows: list[tuple[str | int, ...]] = [(name, *map(_value, values)) for name, *values in named]
    rows.append(("Mean squared error", "", *(_error(one["mse"]) for one in views)))
    return Table("Fields on a scale from 0 to 1, from the least to the largest value that is declared", columns,
                 tuple(rows), last_is_sum=True)  # fmt: skip


def _errors(views: Sequence[dict[str, Any]]) -> Table:
    columns = (Column("What the server sees", numeric=False), Column("Mean squared error"), Column("Signal to noise"))
    rows = tuple((VIEWS[one["view"]], _error(one["mse"]), _quality(one["mse"])) for one in views)
    return Table("Distance from the record; values from 0, black, to 1, white", columns, rows)


def _value(text: str) -> str:
    return f"{float(text):.3f}" if text else ""


def _error(text: str) -> str:
    return f"{float(text):.2g}"
