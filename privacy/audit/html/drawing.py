"""What every chart of the report page is drawn with: positions in percent, round ticks, and a title for the blind.

Positions are in percent, so that a chart fits any width with its letters unscaled. Text reaches SVG only through
``Markup.format``, which escapes it.
"""

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup


def svg(name: str, height: int, title: str, description: str, body: Iterable[Markup]) -> Markup:
    """Frames a drawing as wide as its column.

    Args:
      name: Of the drawing, once on the page.
      height: In pixels.
      title: For people who do not see it.
      description: What they should know of it.
      body: Its parts, from back to front.
    """
    return Markup(
        '<svg class="chart" role="img" aria-labelledby="{name}-title {name}-desc" width="100%" height="{height}">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{description}</desc>{body}</svg>'
    ).format(name=name, height=height, title=title, description=description, body=Markup("").join(body))


def round_ticks(low: float, high: float, *, least: float) -> list[float]:
    """Returns two to six round numbers whose range covers ``low`` to ``high``, read as at least ``least`` apart."""
    span = max(high - low, least, 1e-6 * abs(high))
    step = 10.0 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def fraction(value: float, ticks: Sequence[float]) -> float:
    """Returns where a value lies between the first tick, 0, and the last, 1; values beyond lie at the ends."""
    return min(max((value - ticks[0]) / (ticks[-1] - ticks[0]), 0.0), 1.0)


def inset(share: float) -> float:
    """Moves both ends of a scale inwards, so that marks at the ends are whole."""
    return 0.015 + 0.97 * share


def percent_of(share: float) -> str:
    """Writes a position, 0 to 1, as SVG has it."""
    return f"{100 * share:.2f}%"
