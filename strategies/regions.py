"""Who holds which coordinates of the whole model, and the regions that the same organisations hold.

A region is what one masked sum may open: coordinates that exactly the same organisations hold. Cover counts
organisations and never agents, since what hides one organisation's update is the others' in the same sum. Symbols:
``d`` coordinates of the whole model, ``h`` those that one organisation holds. Everything in this module is public.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np
from numpy.typing import NDArray

from privacy.secagg.encoding import digest
from strategies.contribution import Vector
from strategies.layout import Layout
from strategies.sub_models import Box, SubModel

_REMEMBERED = 8
"""Sets of organisations whose regions a plan keeps: a run asks for the same few; each takes 8 bytes a coordinate."""


@dataclass(frozen=True, eq=False)
class HeldRegion:
    """Coordinates that exactly the same organisations hold; public.

    Attributes:
      holders: Organisations, sorted; at least one.
      positions: Places in the whole's flat vector, int64, ascending, read-only; at least one.
    """

    holders: tuple[str, ...]
    positions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Plan:
    """Which agent holds which part, and which organisation it belongs to; public and the same for everybody.

    Attributes:
      layout: Of the whole model.
      agents: The part of each agent, by its id.
      organisations: Of an agent; one that is not listed is its own organisation, under its own id.

    Raises: ValueError: No agent, an organisation of an unknown agent, or a part of another model: the caller's bug.
    """

    layout: Layout
    agents: Mapping[str, SubModel]
    organisations: Mapping[str, str] = field(default_factory=dict)
    _found: dict[frozenset[str], tuple[HeldRegion, ...]] = field(default_factory=dict, init=False, repr=False)
    _held: dict[str, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.agents or not self.organisations.keys() <= self.agents.keys():
            raise ValueError("a plan needs at least one agent, and organisations only of its agents")
        if any(part.whole != self.layout for part in self.agents.values()):
            raise ValueError("every part of a plan must be a part of the plan's own layout")
        object.__setattr__(self, "agents", dict(self.agents))
        object.__setattr__(self, "organisations", dict(self.organisations))

    def regions(self, who: Iterable[str] | None = None) -> tuple[HeldRegion, ...]:
        """Groups the coordinates by exactly who holds them.

        An organisation holds a coordinate if one of its agents holds it in every dimension of its tensor.

        Args:
          who: The organisations that take part; ``None`` for all. One that the plan does not know holds nothing.

        Returns: Disjoint regions, sorted by holders, without the coordinates that nobody holds. Kept for the next call.
        """
        chosen = self._everybody if who is None else self._everybody.intersection(who)
        found = self._found.get(chosen)
        if found is None:
            if len(self._found) >= _REMEMBERED:
                self._found.pop(next(iter(self._found)), None)
            found = self._found[chosen] = self._grouped(chosen)
        return found

    def check(self, min_cover: int, who: Iterable[str] | None = None) -> tuple[HeldRegion, ...]:
        """Returns the regions with fewer than ``min_cover`` holders within ``who``; an empty tuple means: fine."""
        return tuple(region for region in self.regions(who) if len(region.holders) < min_cover)

    def held_by(self, organisation: str) -> NDArray[np.int64]:
        """Returns what the organisation's agents hold together: ascending places in the whole's flat vector.

        Raises: ValueError: The plan has no such organisation: the caller's bug.
        """
        found = self._held.get(organisation)
        if found is None:
            parts = [part for agent, part in self.agents.items() if self._organisation(agent) == organisation]
            if not parts:
                raise ValueError(f"the plan has no organisation {organisation!r}")
            found = parts[0].held if len(parts) == 1 else self._grouped(frozenset({organisation}))[0].positions
            self._held[organisation] = found
        return found

    def held_of(self, organisation: str, arrays: Mapping[str, Vector]) -> dict[str, Vector]:
        """Returns an organisation's entries of arrays over the whole, each of shape ``(d,)``: new ones, ``(h,)``.

        Raises: ValueError: The plan has no such organisation: the caller's bug.
        """
        held = self.held_by(organisation)
        return {name: array[held] for name, array in arrays.items()}

    @cached_property
    def digest(self) -> bytes:
        """32 bytes; equal exactly for equal plans: layout, agents, organisations, parts."""
        agents = (
            digest("plan/sub-models/agent", agent.encode(), self._organisation(agent).encode(), part.digest)
            for agent, part in sorted(self.agents.items())
        )
        return digest("plan/sub-models", self.layout.digest.encode(), *agents)

    @cached_property
    def is_whole(self) -> bool:
        """Whether every organisation holds every coordinate."""
        # A part shares at least something, so a region that covers everything is everybody's.
        return self.regions()[0].positions.size == self.layout.size

    @cached_property
    def _everybody(self) -> frozenset[str]:
        return frozenset(map(self._organisation, self.agents))

    def _organisation(self, agent: str) -> str:
        return self.organisations.get(agent, agent)

    def _grouped(self, who: frozenset[str]) -> tuple[HeldRegion, ...]:
        parts = [(self._organisation(agent), part) for agent, part in self.agents.items()]
        places: dict[tuple[str, ...], list[NDArray[np.int64]]] = defaultdict(list)
        for name, shape, start in zip(self.layout.names, self.layout.shapes, self.layout.offsets, strict=True):
            boxes = [(owner, part.shared[name]) for owner, part in parts if owner in who and name in part.shared]
            for holders, found in _split(shape, boxes).items():
                places[holders].append(start + found)
        regions = []
        for holders in sorted(places):
            positions = np.concatenate(places[holders])
            positions.setflags(write=False)
            regions.append(HeldRegion(holders, positions))
        return tuple(regions)


def _split(shape: tuple[int, ...], boxes: Sequence[tuple[str, Box]]) -> dict[tuple[str, ...], NDArray[np.int64]]:
    """Groups a tensor's coordinates by exactly which owners' boxes hold them.

    Along each dimension, places that lie in the same boxes form a class; a combination of classes is a cell, and all
    coordinates of a cell have the same holders. So holders are found in a small table of cells, whatever the tensor's
    size, and the table is then spread over the coordinates.

    Returns: By sorted holders, flat positions within the tensor, ascending; without those that nobody holds.
    """
    if not boxes:
        return {}
    owners = sorted({owner for owner, _ in boxes})
    classes, inside = [], []  # per dimension: of each place; and of each class: the boxes that contain it
    for k, extent in enumerate(shape):
        members = np.zeros((len(boxes), extent), np.bool_)
        for row, (_, box) in zip(members, boxes, strict=True):
            row[box[k]] = True
        of_place, examples = _classes(members)
        classes.append(of_place)
        inside.append(members[:, examples])
    cells = tuple(table.shape[1] for table in inside)
    held = np.zeros((len(owners), *cells), np.bool_)
    for j, (owner, _) in enumerate(boxes):
        held[owners.index(owner)] |= reduce(np.logical_and.outer, (table[j] for table in inside), np.True_)
    held = held.reshape(len(owners), -1)
    of_cell, examples = _classes(held)
    spread = of_cell.astype(np.min_scalar_type(len(examples))).reshape(cells)
    for k, of_place in enumerate(classes):
        spread = spread.take(of_place, axis=k)
    # A stable sort of small integers is a radix sort: linear, and it keeps positions ascending.
    order = spread.argsort(axis=None, kind="stable")
    groups = np.split(order, np.bincount(spread.reshape(-1), minlength=len(examples)).cumsum()[:-1])
    holders = [tuple(owner for owner, holds in zip(owners, held[:, k], strict=True) if holds) for k in examples]
    return {who: group for who, group in zip(holders, groups, strict=True) if who}


def _classes(members: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Numbers the different columns of ``members``, shape ``(b, m)``, by refining classes row by row.

    Returns: The class of each column, shape ``(m,)``; for each class, one column that has it.
    """
    # Only columns that differ from the one before are looked at: slices of a long dimension have few such breakpoints.
    breaks = np.flatnonzero(np.append(True, (members[:, 1:] != members[:, :-1]).any(axis=0)))
    of_run, count = np.zeros(breaks.size, np.intp), 1
    for row in members[:, breaks]:
        codes = 2 * of_run + row
        present = np.flatnonzero(np.bincount(codes, minlength=2 * count))
        renumbered = np.zeros(2 * count, np.intp)
        count = present.size
        renumbered[present] = np.arange(count)
        of_run = renumbered[codes]
    examples = np.zeros(count, np.intp)
    examples[of_run] = breaks
    return np.repeat(of_run, np.diff(breaks, append=members.shape[1])), examples
