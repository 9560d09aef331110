"""Inline SVG for the report page: positions in percent, so that a chart fits any width with its letters unscaled.

The same input draws the same bytes. Every chart has a title and a description for people who do not see it, shapes as
well as colours for its series, and a table beside it in the page. Text reaches SVG only through ``Markup.format``,
which escapes it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from privacy.audit.html.drawing import fraction, inset, percent_of, round_ticks, svg

MOST_ROWS = 40
"""Sites that a chart shows; the table beside it shows all."""

_LANE = 13
_LABEL = 20
_GAP = 14


@dataclass(frozen=True)
class Mark:
    """One score in a row: ``series`` picks shape and colour; ``value`` is in the chart's unit."""

    series: str
    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class ScoreRow:
    """A site's scores, one lane each."""

    label: str
    more: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class BudgetRow:
    """A holder's epsilon: spent, and planned if every retry had been used; nothing is planned over all runs."""

    label: str
    spent: float
    planned: float | None
    text: str


@dataclass(frozen=True)
class RegionBar:
    """A region of a divided model: its parameters, the share of sites that hold it, of rounds that it stood still."""

    label: str
    text: str
    size: int
    held: float
    still: float


def scores(rows: Sequence[ScoreRow], lanes: Sequence[str], *, percent: bool, description: str) -> Markup:
    """Draws one row a site, one lane a series, on a common axis.

    Args:
      rows: Scores between 0 and 1.
      lanes: Series names from top to bottom.
      percent: Whether the axis reads in percent.
      description: What a reader who does not see the chart should know.
    """
    shown = rows[:MOST_ROWS]
    values = [v for row in shown for mark in row.marks for v in (mark.value, *(mark.interval or ()))]
    ticks = round_ticks(min(values, default=0.0), max(values, default=1.0), least=0.1)
    pitch = _LABEL + _LANE * len(lanes) + _GAP
    height = pitch * len(shown) + 22
    body = [_grid(ticks, height - 22, percent=percent)]
    for index, row in enumerate(shown):
        top = index * pitch
        label = Markup('<text class="name" x="0" y="{}">{}<tspan class="more">, {}</tspan></text>')
        body.append(label.format(top + 14, row.label, row.more))
        if index:
            body.append(Markup('<line class="rule" x1="0" x2="100%" y1="{0}" y2="{0}"/>').format(top - 4))
        for lane, series in enumerate(lanes):
            y = top + _LABEL + _LANE * lane + _LANE // 2
            body.append(Markup('<line class="lane" x1="0%" x2="100%" y1="{0}" y2="{0}"/>').format(y))
            body += [_mark(mark, ticks, y) for mark in row.marks if mark.series == series]
    return svg("scores", height, "Score of each model at each site", description, body)


def budgets(rows: Sequence[BudgetRow], target: float, *, name: str, title: str) -> Markup:
    """Draws each holder's spent and planned epsilon as a bar against the target.

    Args:
      rows: One bar each.
      target: Where the upright line stands.
      name: Of the drawing, once on the page.
      title: For people who do not see it; a description is made of the first rows.
    """
    shown = rows[:MOST_ROWS]
    full = max([target, *(row.planned or 0.0 for row in shown), *(row.spent for row in shown)]) * 1.02 or 1.0
    height = 44 * len(shown) + 4
    body = []
    for index, row in enumerate(shown):
        top = index * 44
        place = {
            "y": top + 20,
            "spent": percent_of(row.spent / full),
            "planned": percent_of((row.planned or 0.0) / full),
        }
        body.append(Markup('<text class="name" x="0" y="{}">{}</text>').format(top + 14, row.label))
        body.append(Markup('<text class="value end" x="100%" y="{}">{}</text>').format(top + 14, row.text))
        body.append(Markup('<rect class="track" x="0" y="{y}" width="100%" height="12"/>').format(**place))
        if row.planned is not None:
            body.append(Markup('<rect class="planned" x="0" y="{y}" width="{planned}" height="12"/>').format(**place))
        body.append(Markup('<rect class="spent" x="0" y="{y}" width="{spent}" height="12"/>').format(**place))
        limit = Markup('<line class="limit" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>')
        body.append(limit.format(percent_of(target / full), top + 17, top + 35))
    return svg(name, height, title, "; ".join(f"{row.label}: {row.text}" for row in rows[:8]), body)


def regions(bars: Sequence[RegionBar]) -> Markup:
    """Draws a bar a region: as wide as its parameters, as dark as many sites hold it, hatched for rounds at rest."""
    shown, most = bars[:MOST_ROWS], max((bar.size for bar in bars), default=1)
    hatch = Markup(
        '<defs><pattern id="at-rest" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
        '<rect class="rest" width="7" height="7"/><line class="hatch" x1="0" x2="0" y1="0" y2="7"/></pattern></defs>'
    )
    body = [hatch]
    for index, bar in enumerate(shown):
        top, width = 46 * index, max(bar.size / most, 0.005)
        body.append(Markup('<text class="name" x="0" y="{}">{}</text>').format(top + 14, bar.label))
        body.append(Markup('<text class="value end" x="100%" y="{}">{}</text>').format(top + 14, bar.text))
        held = Markup('<rect class="region" x="0" y="{}" width="{}" height="14" fill-opacity="{}"/>')
        body.append(held.format(top + 21, percent_of(width), f"{0.2 + 0.8 * min(bar.held, 1.0):.2f}"))
        if bar.still:
            rest = Markup('<rect x="0" y="{}" width="{}" height="14" fill="url(#at-rest)"/>')
            body.append(rest.format(top + 21, percent_of(width * min(bar.still, 1.0))))
    described = "; ".join(f"{bar.label}: {bar.text}" for bar in shown[:8])
    return svg("regions", 46 * len(shown) + 4, "Regions of the model", described, body)


def losses(points: Sequence[tuple[int, float | None]], skipped: Iterable[int], description: str) -> Markup:
    """Draws training loss over rounds; a round without a loss is a gap, a skipped one a cross on the axis."""
    known = [value for _, value in points if value is not None]
    ticks = round_ticks(min(known, default=0.0), max(known, default=1.0), least=0.01)
    height, base = 196, 170
    last = max((number for number, _ in points), default=1)

    def x(number: int) -> str:
        return percent_of(0.06 + 0.92 * ((number - 1) / max(last - 1, 1)))

    def y(value: float) -> str:
        return f"{base - 156 * fraction(value, ticks):.1f}"

    body = []
    for tick in ticks:
        body.append(Markup('<line class="grid" x1="5%" x2="100%" y1="{0}" y2="{0}"/>').format(y(tick)))
        body.append(Markup('<text class="tick" x="0" y="{}">{}</text>').format(float(y(tick)) + 4, f"{tick:.3g}"))
    for (here, value), (there, following) in pairwise(points):
        if value is not None and following is not None:
            segment = Markup('<line class="curve" x1="{}" y1="{}" x2="{}" y2="{}"/>')
            body.append(segment.format(x(here), y(value), x(there), y(following)))
    radius = 3 if last <= MOST_ROWS else 1
    for number, value in points:
        if value is not None:
            dot = Markup('<circle class="dot" cx="{}" cy="{}" r="{}"/>')
            body.append(dot.format(x(number), y(value), radius))
    body += [Markup('<text class="skip mid" x="{}" y="{}">×</text>').format(x(number), base + 4) for number in skipped]
    for number in _round_labels(last):
        body.append(Markup('<text class="tick mid" x="{}" y="{}">{}</text>').format(x(number), base + 20, number))
    return svg("losses", height, "Training loss over the rounds", description, body)


def suspicion(after: float, label: str, description: str, *, name: str) -> Markup:
    """Draws a 50 % suspicion and the most it can become, ``after``, on a scale from 0 to 100 %; ``name``: see above."""
    body = [
        Markup('<rect class="track" x="0" y="24" width="100%" height="14"/>'),
        Markup('<rect class="before" x="0" y="24" width="50%" height="14"/>'),
        Markup('<rect class="after" x="50%" y="24" width="{}" height="14"/>').format(percent_of(after - 0.5)),
        Markup('<line class="limit" x1="50%" x2="50%" y1="20" y2="42"/>'),
        Markup('<line class="limit" x1="{0}" x2="{0}" y1="20" y2="42"/>').format(percent_of(after)),
        Markup('<text class="tick end" x="49.5%" y="14">50 % before</text>'),
        Markup('<text class="value" x="50.5%" y="14">{}</text>').format(label),
        Markup('<text class="tick" x="0" y="56">0 %</text>'),
        Markup('<text class="tick end" x="100%" y="56">100 %: certain</text>'),
    ]
    return svg(name, 60, "How far a suspicion can rise", description, body)


def key(series: str) -> Markup:
    """Draws the mark of a series for the legend; decorative, the name stands beside it."""
    drawn = Markup("").join(_shape(series, "50%", 8))
    return Markup('<svg class="key" width="22" height="16" aria-hidden="true">{}</svg>').format(drawn)


def _mark(mark: Mark, ticks: Sequence[float], y: int) -> Markup:
    parts = []
    if mark.interval is not None:
        low, high = (percent_of(inset(fraction(value, ticks))) for value in mark.interval)
        parts.append(Markup('<line class="range" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(low, high, y, y))
        stop = Markup('<line class="range" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>')
        parts += [stop.format(end, y - 4, y + 4) for end in (low, high)]
    return Markup("").join([*parts, *_shape(mark.series, percent_of(inset(fraction(mark.value, ticks))), y)])


def _shape(series: str, x: str, y: int) -> list[Markup]:
    outline = {
        "home": "M-4.5,-4.5h9v9h-9z",
        "elsewhere": "M0,-6l6,6l-6,6l-6,-6z",
        "together": "M-5.5,0a5.5,5.5 0 1,0 11,0a5.5,5.5 0 1,0 -11,0z",
        "together_without_privacy": "M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0z",
        "pooled": "M-5,-5l10,10M-5,5l10,-10",
    }[series]
    # A nested svg takes its place in percent; a path cannot.
    nested = Markup('<svg x="{}" y="{}" overflow="visible"><path class="mark {}" d="{}"/></svg>')
    return [nested.format(x, y, series, outline)]


def _grid(ticks: Sequence[float], bottom: int, *, percent: bool) -> Markup:
    parts = []
    for index, tick in enumerate(ticks):
        x = percent_of(inset(fraction(tick, ticks)))
        anchor = "" if index == 0 else " end" if index == len(ticks) - 1 else " mid"
        text = f"{tick * 100:.3g} %" if percent else f"{tick:.2f}"
        parts.append(Markup('<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/>').format(x, bottom))
        parts.append(Markup('<text class="tick{}" x="{}" y="{}">{}</text>').format(anchor, x, bottom + 17, text))
    return Markup("").join(parts)


def _round_labels(last: int) -> list[int]:
    return list(range(1, last + 1, max(1, math.ceil(last / 8))))
