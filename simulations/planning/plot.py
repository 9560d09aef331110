"""A picture of a plan as one SVG file: what crosses at each cut, and who works when.

The same proposal draws the same bytes. Text reaches the picture only through `escape`.
"""

import math
from collections.abc import Iterator
from html import escape

from simulations.planning.sheet import Proposal, amount, span
from strategies.planner import Chain

_WIDTH, _LEFT, _RIGHT = 880, 130, 20
_PLOT = _WIDTH - _LEFT - _RIGHT
_TOP, _HIGH, _LANE, _ROOM = 70, 170, 34, 16
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1b1f24 } .small { font-size: 11px; fill: #4a525c }
.head { font-weight: 600; font-size: 15px } .end { text-anchor: end } .middle { text-anchor: middle }
.axis { stroke: #8a939e } .bar { fill: #9fb4c7 } .chosen { fill: #b3471d } .shared { fill: #fff; stroke: #8a939e }
.forward { fill: #2b6c8f } .backward { fill: #7a4f9a } .line { stroke: #b3471d; stroke-width: 2 }
.white { fill: #fff; font-size: 11px }
"""


def draw(found: Proposal) -> str:
    """Returns the picture: above, what would cross at each cut; below, the chain's timetable if there is one."""
    lanes = len(found.devices.devices) if found.chain else 0
    timetable = _TOP + _HIGH + 125
    height = timetable + lanes * _LANE + 50 if lanes else timetable - 40
    body = [*_crossings(found), *(_timetable(found, found.chain, timetable) if found.chain else ())]
    title = escape(f"Plan of {found.name}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
        f' role="img" aria-labelledby="title description"><title id="title">{title}</title>'
        f'<desc id="description">{escape(_description(found))}</desc><style>{_STYLE}</style>'
        f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _description(found: Proposal) -> str:
    cuts = "; ".join(f"after {cut.node} {amount(found.step_bytes(cut), 'B')}" for cut in found.cuts)
    stages = "; ".join(
        f"{stage.device.name} from {found.node(stage.start)} to {found.node(stage.end)}, {span(stage.seconds)}"
        for stage in (found.chain.stages if found.chain else ())
    )
    return f"Bytes a step at each cut: {cuts or 'no cuts'}. Stages: {stages or found.refused}."


def _crossings(found: Proposal) -> Iterator[str]:
    """Yields a bar a cut, in the order of the model; up, bytes a step on a logarithmic axis."""
    base, cuts = _TOP + _HIGH, found.cuts
    yield _text(20, 28, f"What would cross at each cut of {found.name}", "head")
    yield _text(20, 46, "bytes a step; red: a cut of the chain; hollow: weights on both sides, never planned", "small")
    sizes = [found.step_bytes(cut) for cut in cuts] or [1]
    low, high = math.floor(math.log10(max(*sizes, 1)) - 1.01), math.ceil(math.log10(max(*sizes, 2)) + 0.01)
    low = min(low, math.floor(math.log10(max(min(sizes), 1)) - 0.01))
    for power in range(low, high + 1):
        y = base - _HIGH * (power - low) / (high - low)
        yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y:.1f}" y2="{y:.1f}" stroke-dasharray="2 4"/>'
        yield _text(_LEFT - 8, y + 4, amount(10.0**power, "B"), "small end")
    used = {found.profile.nodes[stage.end - 1] for stage in found.chain.stages[:-1]} if found.chain else set()
    step = _PLOT / max(len(cuts), 1)
    for index, cut in enumerate(cuts):
        x, wide = _LEFT + step * (index + 0.5), min(0.7 * step, 24.0)
        top = _HIGH * (math.log10(max(found.step_bytes(cut), 1)) - low) / (high - low)
        kind = "shared" if cut.shared_keys else "chosen" if cut.node in used else "bar"
        label = escape(f"after {cut.node} ({cut.what}): {amount(found.step_bytes(cut), 'B')}; {cut.note}")
        yield (
            f'<rect class="{kind}" x="{x - wide / 2:.1f}" y="{base - top:.1f}" width="{wide:.1f}" height="{top:.1f}">'
            f"<title>{label}</title></rect>"
        )
        if cut.node in used or step >= _ROOM:
            at = f'transform="translate({x + 4:.1f} {base + 12}) rotate(-40)"'
            yield f'<text {at} class="small end">{escape(cut.node[:24])}</text>'


def _timetable(found: Proposal, chain: Chain, top: int) -> Iterator[str]:
    """Yields a lane a device, with the forward passes, the transfers between, and the backward passes."""
    rows = {device.name: index for index, device in enumerate(found.devices.devices)}
    bottom = top + len(rows) * _LANE
    yield _text(20, top - 32, "Who works when, for one micro-batch alone", "head")
    yield _text(20, top - 14, "blue: forward; violet: backward; red: on the line", "small")
    for name, row in rows.items():
        y = top + row * _LANE
        yield _text(_LEFT - 8, y + 21, name, "end")
        yield f'<line class="axis" x1="{_LEFT}" x2="{_LEFT + _PLOT}" y1="{y + _LANE - 1}" y2="{y + _LANE - 1}"/>'
    scale = _PLOT / chain.latency if chain.latency else 0.0
    for kind, first, second, start, end, label in _events(found, chain):
        x, width = _LEFT + start * scale, (end - start) * scale
        y1, y2 = top + rows[first] * _LANE, top + rows[second] * _LANE
        if kind == "line":
            yield f'<line class="line" x1="{x:.1f}" y1="{y1 + 16}" x2="{x + width:.1f}" y2="{y2 + 16}"/>'
            continue
        yield (
            f'<rect class="{kind}" x="{x:.1f}" y="{y1 + 4}" width="{max(width, 1.5):.1f}" height="{_LANE - 9}">'
            f"<title>{escape(f'{first}: {kind}, {label}, {span(end - start)}')}</title></rect>"
        )
        if width > 8 * len(label):
            yield _text(x + width / 2, y1 + 21, label, "white middle")
    yield _text(_LEFT, bottom + 18, "0", "small middle")
    yield _text(_LEFT + _PLOT, bottom + 18, span(chain.latency), "small end")


def _events(found: Proposal, chain: Chain) -> Iterator[tuple[str, str, str, float, float, str]]:
    """Yields what happens one after another: kind, device, device, start, end, label."""
    now, ways = 0.0, {hop.boundary: hop for hop in chain.hops if hop.seconds}
    backwards = 2 if found.work.train else 1
    if 0 in ways:
        now = ways[0].seconds
        yield "line", ways[0].giver.name, ways[0].taker.name, 0.0, now, ""
    for stage in chain.stages:
        label = f"to {found.node(stage.end)}"
        length = stage.seconds / (3 if found.work.train else 1)
        yield "forward", stage.device.name, stage.device.name, now, now + length, label
        now += length
        if hop := ways.get(stage.end):
            yield "line", hop.giver.name, hop.taker.name, now, now + hop.seconds / backwards, ""
            now += hop.seconds / backwards
    for stage in reversed(chain.stages if found.work.train else ()):
        hop = ways.get(stage.end)
        if hop:
            yield "line", hop.taker.name, hop.giver.name, now, now + hop.seconds / 2, ""
            now += hop.seconds / 2
        length = stage.seconds * 2 / 3
        yield "backward", stage.device.name, stage.device.name, now, now + length, f"to {found.node(stage.start)}"
        now += length


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'
