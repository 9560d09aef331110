"""Random layouts, parts and plans, and who holds what according to loops over single coordinates."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from strategies.layout import Layout
from strategies.regions import Plan
from strategies.sub_models import Box, SubModel

shapes = st.lists(st.integers(1, 4), max_size=4).map(tuple)
names = st.text("abc.", min_size=1, max_size=3)


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    chosen = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return Layout(tuple(chosen), tuple(draw(shapes) for _ in chosen))


@st.composite
def _boxes(draw: st.DrawFn, shape: tuple[int, ...]) -> Box:
    return tuple(
        np.array(draw(st.lists(st.integers(0, extent - 1), min_size=1, unique=True)), np.int64) for extent in shape
    )


@st.composite
def parts(draw: st.DrawFn, layout: Layout) -> SubModel:
    """Boxes in any order, frozen ones, private ones with and without a place in the whole, and a piece in any order."""
    kinds = {name: draw(st.sampled_from(["shared", "shared", "frozen", "private", "absent"])) for name in layout.names}
    kinds[draw(st.sampled_from(layout.names))] = "shared"
    whole = dict(zip(layout.names, layout.shapes, strict=True))
    boxes = {name: draw(_boxes(whole[name])) for name, kind in kinds.items() if kind in {"shared", "frozen"}}
    piece = {name: tuple(axis.size for axis in box) for name, box in boxes.items()}
    own = [name for name, kind in kinds.items() if kind == "private"] + draw(st.sampled_from([[], ["own"]]))
    piece |= {name: draw(shapes) for name in own}
    order = draw(st.permutations(list(piece)))
    return SubModel(
        layout,
        Layout(tuple(order), tuple(piece[name] for name in order)),
        {name: box for name, box in boxes.items() if kinds[name] == "shared"},
        {name: box for name, box in boxes.items() if kinds[name] == "frozen"},
        frozenset(own),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """One to six agents; some are organisations of their own, some share one, even with an agent of that very name."""
    layout = draw(layouts())
    agents = {f"agent-{k}": draw(parts(layout)) for k in range(draw(st.integers(1, 6)))}
    owners = st.sampled_from([None, "north", "south", "agent-0"])
    listed = {agent: draw(owners) for agent in agents}
    return Plan(layout, agents, {agent: owner for agent, owner in listed.items() if owner is not None})


def coordinates(layout: Layout, boxes: dict[str, Box]) -> dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """Returns, by tensor, the flat positions of its box in the whole, in the box's own order and shape."""
    places = {}
    for name, shape, start, size in zip(layout.names, layout.shapes, layout.offsets, layout.sizes, strict=True):
        if name in boxes:
            numbered = np.arange(start, start + size).reshape(shape)
            places[name] = np.asarray(numbered[np.ix_(*boxes[name])])
    return places


@dataclass(frozen=True)
class Oracle:
    """Who holds each coordinate, by looking at one after the other."""

    holders: dict[int, set[str]]

    @classmethod
    def of(cls, plan: Plan) -> "Oracle":
        found: dict[int, set[str]] = defaultdict(set)
        for agent, part in plan.agents.items():
            for places in coordinates(plan.layout, dict(part.shared)).values():
                for place in places.reshape(-1).tolist():
                    found[place].add(plan.organisations.get(agent, agent))
        return cls(found)

    def regions(self, who: set[str]) -> dict[tuple[str, ...], list[int]]:
        grouped: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for place in sorted(self.holders):
            if self.holders[place] & who:
                grouped[tuple(sorted(self.holders[place] & who))].append(place)
        return dict(sorted(grouped.items()))
