"""Inline SVG of what was tested and attacked: a strip of tests, bounds of epsilon, curves, and reconstructed values.

As in ``charts``: the same input draws the same bytes, shapes differ as well as colours, and a table stands beside each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from privacy.audit.html.charts import MOST_ROWS
from privacy.audit.html.drawing import fraction, percent_of, round_ticks, svg

_ROW, _CELL, _LANE = 48, 20, 14
_SIDE = 150
_LEVELS = 15


@dataclass(frozen=True)
class StripRow:
    """Tests of one release path: True passed, False failed, None does not apply."""

    label: str
    more: str
    cells: tuple[bool | None, ...]


@dataclass(frozen=True)
class BoundRow:
    """Lower bounds of epsilon that one attack found, by method; None where a method does not apply."""

    label: str
    more: str
    bounds: tuple[tuple[str, float | None], ...]


@dataclass(frozen=True)
class Roc:
    """An attack's rates of false and true positives; ``ceiling`` likewise, empty where nothing bounds them.

    Attributes:
      points: From (0, 0) to (1, 1).
      ceiling: Corners of the largest curve that differential privacy allows.
      intervals: False positive rate, and the ends of an interval of the true one.
    """

    points: tuple[tuple[float, float], ...]
    ceiling: tuple[tuple[float, float], ...]
    intervals: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Line:
    """A curve; ``limit`` is a level to stay below; ``marked`` is the point that is claimed, and its words."""

    points: tuple[tuple[float, float], ...]
    x_labels: tuple[tuple[float, str], ...]
    limit: tuple[float, str] | None
    marked: tuple[float, float, str]


def strip(rows: Sequence[StripRow], columns: Sequence[str], *, name: str, title: str, description: str) -> Markup:
    """Draws a cell a test: a tick where it passed, a cross where it failed, a dash where it does not apply."""
    shown, n = rows[:MOST_ROWS], len(columns)
    body = [
        Markup('<text class="tick mid" x="{}" y="12">{}</text>').format(percent_of((k + 0.5) / n), column)
        for k, column in enumerate(columns)
    ]
    for index, row in enumerate(shown):
        top = 20 + index * _ROW
        label = Markup('<text class="name" x="0" y="{}">{}<tspan class="more">{}</tspan></text>')
        body.append(label.format(top + 14, row.label, row.more))
        body += [_cell(k / n, 1 / n, top + 20, state) for k, state in enumerate(row.cells)]
    return svg(name, 20 + _ROW * len(shown), title, description, body)


def _cell(left: float, width: float, top: int, state: bool | None) -> Markup:
    kind, path = {
        True: ("passed", "M-5,0l3.5,4l6.5,-8"),
        False: ("failed", "M-5,-5l10,10M-5,5l10,-10"),
        None: ("absent", "M-4,0h8"),
    }[state]
    return Markup(
        '<rect class="cell {0}" x="{1}" y="{2}" width="{3}" height="{4}"/>'
        '<svg x="{5}" y="{6}" overflow="visible"><path class="sign {0}" d="{7}"/></svg>'
    ).format(
        kind, percent_of(left + 0.002), top, percent_of(width - 0.004), _CELL, percent_of(left + width / 2),
        top + _CELL // 2, path,
    )  # fmt: skip


def bounds(
    rows: Sequence[BoundRow], *, formal: float | None, label: str, name: str, title: str, description: str
) -> Markup:
    """Draws lower bounds of epsilon on one axis, one lane a method, and the formal value as an upright line.

    Right of that line no bound may lie unless a defect was made on purpose. Larger ones stand at the edge, as arrows.
    """
    found = [value for row in rows for _, value in row.bounds if value is not None]
    ticks = round_ticks(0.0, 2.2 * formal if formal else max(found, default=1.0), least=1.0)
    lanes = max((len(row.bounds) for row in rows), default=0)
    pitch = 22 + _LANE * lanes + 12
    height = 22 + pitch * len(rows) + 24
    base = height - 24
    body = []
    if formal is not None:
        line = percent_of(_along(formal, ticks))
        beyond = Markup('<rect class="beyond" x="{}" y="20" width="{}" height="{}"/>')
        body.append(beyond.format(line, percent_of(1 - _along(formal, ticks)), base - 20))
        body.append(Markup('<text class="value" x="{}" y="13">{}</text>').format(line, label))
    for index, tick in enumerate(ticks):
        x, anchor = percent_of(_along(tick, ticks)), "" if index == 0 else " end" if index == len(ticks) - 1 else " mid"
        body.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="20" y2="{1}"/>').format(x, base))
        body.append(Markup('<text class="tick{}" x="{}" y="{}">{}</text>').format(anchor, x, base + 17, f"{tick:.3g}"))
    if formal is not None:
        body.append(Markup('<line class="limit" x1="{0}" x2="{0}" y1="20" y2="{1}"/>').format(line, base))
    for index, row in enumerate(rows):
        body += _bound_row(row, ticks, 22 + index * pitch, rule=index > 0)
    return svg(name, height, title, description, body)


def _bound_row(row: BoundRow, ticks: Sequence[float], top: int, *, rule: bool) -> list[Markup]:
    body = [Markup('<line class="rule" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(top)] if rule else []
    label = Markup('<text class="name halo" x="0" y="{}">{}<tspan class="more">{}</tspan></text>')
    body.append(label.format(top + 16, row.label, row.more))
    for lane, (series, value) in enumerate(row.bounds):
        y = top + 22 + _LANE * lane + _LANE // 2
        body.append(Markup('<line class="lane" x1="0%" x2="100%" y1="{0}" y2="{0}"/>').format(y))
        if value is None:
            continue
        outside = value > ticks[-1]
        x = "99%" if outside else percent_of(_along(value, ticks))
        body.append(_sign(f"{series} outside" if outside else series, x, y, "beyond" if outside else series))
    return body


def key(series: str) -> Markup:
    """Draws the mark of a method for the legend; decorative, the name stands beside it."""
    drawn = _sign(series, "50%", 8, series)
    return Markup('<svg class="key" width="22" height="16" aria-hidden="true">{}</svg>').format(drawn)


def _sign(classes: str, x: str, y: int, shape: str) -> Markup:
    path = {
        "steinke": "M0,-6l6,6l-6,6l-6,-6z",
        "fdp": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
        "pair": "M-4.5,-4.5h9v9h-9z",
        "pair_999": "M-5,4.5h10l-5,-9z",
        "beyond": "M-6,-5l9,5l-9,5z",
    }[shape]
    nested = Markup('<svg x="{}" y="{}" overflow="visible"><path class="bound {}" d="{}"/></svg>')
    return nested.format(x, y, classes, path)


def _along(value: float, ticks: Sequence[float]) -> float:
    return 0.005 + 0.975 * fraction(value, ticks)


def roc(curve: Roc, *, name: str, title: str, description: str) -> Markup:
    """Draws an attack's curve: the diagonal is guessing, the shaded part is out of reach under the bound."""

    def points(corners: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{1000 * x:.4g},{1000 * (1 - y):.4g}" for x, y in corners)

    inside = []
    if curve.ceiling:
        above = [*curve.ceiling, (0.0, 1.0)]
        inside.append(Markup('<polygon class="beyond" points="{}"/>').format(points(above)))
        inside.append(Markup('<polyline class="edge" points="{}"/>').format(points(curve.ceiling)))
    inside.append(Markup('<line class="guessing" x1="0" y1="1000" x2="1000" y2="0"/>'))
    inside.append(Markup('<polyline class="found" points="{}"/>').format(points(curve.points)))
    # A nested view box, since a curve cannot be placed in percent; strokes keep their width.
    plot = Markup(
        '<svg x="0" y="4" width="100%" height="{}" viewBox="0 0 1000 1000" preserveAspectRatio="none">{}</svg>'
    ).format(_SIDE, Markup("").join(inside))
    frame = Markup('<rect class="frame" x="0" y="4" width="100%" height="{}"/>').format(_SIDE)
    body = [frame, plot]
    for rate, low, high in curve.intervals:
        line = Markup('<line class="range" x1="{0}" x2="{0}" y1="{1:.1f}" y2="{2:.1f}"/>')
        body.append(line.format(percent_of(rate), 4 + _SIDE * (1 - low), 4 + _SIDE * (1 - high)))
    body.append(Markup('<text class="tick" x="0" y="{}">0</text>').format(_SIDE + 19))
    body.append(Markup('<text class="tick mid" x="50%" y="{}">wrongly accused</text>').format(_SIDE + 19))
    body.append(Markup('<text class="tick end" x="100%" y="{}">1</text>').format(_SIDE + 19))
    return svg(name, _SIDE + 24, title, description, body)


def line(curve: Line, *, name: str, title: str, description: str) -> Markup:
    """Draws epsilon as a curve; x runs from 0 to 1."""
    tops = [y for _, y in curve.points] + [curve.marked[1]] + ([curve.limit[0]] if curve.limit else [])
    ticks, base = round_ticks(0.0, max(tops), least=0.01), 150

    def x(share: float) -> str:
        return percent_of(0.06 + 0.92 * share)

    def y(value: float) -> str:
        return f"{base - 132 * fraction(value, ticks):.1f}"

    body = []
    for tick in ticks:
        body.append(Markup('<line class="grid" x1="5%" x2="100%" y1="{0}" y2="{0}"/>').format(y(tick)))
        body.append(Markup('<text class="tick" x="0" y="{}">{}</text>').format(float(y(tick)) + 4, f"{tick:.3g}"))
    if curve.limit is not None:
        body.append(Markup('<line class="limit" x1="5%" x2="100%" y1="{0}" y2="{0}"/>').format(y(curve.limit[0])))
        place = float(y(curve.limit[0])) - 6
        body.append(Markup('<text class="value halo" x="6%" y="{}">{}</text>').format(place, curve.limit[1]))
    for (here, low), (there, high) in pairwise(curve.points):
        segment = Markup('<line class="curve" x1="{}" y1="{}" x2="{}" y2="{}"/>')
        body.append(segment.format(x(here), y(low), x(there), y(high)))
    body += [
        Markup('<circle class="dot" cx="{}" cy="{}" r="3"/>').format(x(at), y(value)) for at, value in curve.points
    ]
    at, value, said = curve.marked
    body.append(Markup('<circle class="claimed" cx="{}" cy="{}" r="6"/>').format(x(at), y(value)))
    side, shift = (" end", -0.015) if at > 0.5 else ("", 0.015)
    text = Markup('<text class="value halo{}" x="{}" y="{}">{}</text>')
    body.append(text.format(side, x(at + shift), float(y(value)) + 20, said))
    for at, label in curve.x_labels:
        anchor = "" if at == 0 else " end" if at == 1 else " mid"
        body.append(Markup('<text class="tick{}" x="{}" y="{}">{}</text>').format(anchor, x(at), base + 20, label))
    return svg(name, base + 26, title, description, body)


def pixels(values: Sequence[float], width: int, *, name: str, title: str, description: str) -> Markup:
    """Draws values as shades of grey, row by row, 0 black and 1 white; what lies beyond is drawn as the nearest."""
    rows = [values[start : start + width] for start in range(0, len(values), width)]
    runs: dict[int, list[str]] = {}
    for top, row in enumerate(rows):
        left = 0
        while left < len(row):
            level, end = _level(row[left]), left + 1
            while end < len(row) and _level(row[end]) == level:
                end += 1
            runs.setdefault(level, []).append(f"M{left},{top}h{end - left}v1h{left - end}z")
            left = end
    paths = [
        Markup('<path fill="#{0:x}{0:x}{0:x}" d="{1}"/>').format(level, "".join(runs[level])) for level in sorted(runs)
    ]
    return Markup(
        '<svg class="chart pixels" role="img" aria-labelledby="{name}-title {name}-desc" viewBox="0 0 {width} {height}"'
        ' preserveAspectRatio="none" shape-rendering="crispEdges"><title id="{name}-title">{title}</title>'
        '<desc id="{name}-desc">{description}</desc>{body}</svg>'
    ).format(
        name=name, width=width, height=len(rows), title=title, description=description, body=Markup("").join(paths)
    )


def _level(value: float) -> int:
    return round(_LEVELS * min(max(value, 0.0), 1.0))
