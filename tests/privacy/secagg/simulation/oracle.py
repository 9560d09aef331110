"""Decides what a coalition can open from what was sent: linear algebra over formal symbols, no cryptography.

Unknowns: every honest site's input, one symbol for each self mask and for each pair mask. A masked vector that was
sent is one equation between them. A coalition of the server and some sites knows every message that left a site, its
members' own secrets and every share dealt to them; with ``t`` shares it knows a secret, and then the masks that it
makes. Whatever is left of the inputs once the unknown masks are eliminated is opened. Shares are recognised by their
bytes, computed here from the random bytes that a site drew (§4.7), not from what the code says it sent.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from privacy.secagg.context import RoundContext
from privacy.secagg.wire import Advert

P = 2**257 - 93
_FIELD = 2**61 - 1

Symbol = tuple[Hashable, ...]
Row = dict[Symbol, int]


@dataclass
class Machine:
    """The truth about one incarnation of one machine.

    Attributes:
      site: Whose.
      input_id: Which input it masks.
      context: Accepted context.
      names: What each region of its own plan is called in all attempts: its number in the oracle's context.
      zero: Regions, by number in its context, where its input is zero: the server made it so, and knows it.
      draws: Random bytes, in order.
      keys: KEYS that it answered with shares.
      u2: Sites of the FWD that it answered with a masked vector.
      regions: Regions that it sent.
      revealed: Places whose share of ``b`` and of ``s`` left their holder in the clear.
    """

    site: str
    input_id: Hashable
    context: RoundContext
    names: tuple[int, ...]
    zero: frozenset[int] = frozenset()
    draws: list[bytes] = field(default_factory=list)
    advert: Advert | None = None
    keys: Mapping[str, Advert] = field(default_factory=dict)
    u2: tuple[str, ...] = ()
    regions: tuple[int, ...] = ()
    revealed: dict[str, set[int]] = field(default_factory=lambda: {"b": set(), "s": set()})

    @property
    def u1(self) -> Symbol:
        return (self.context.digest, *((site, a.c, a.s) for site, a in sorted(self.keys.items())))

    def shares(self) -> Iterator[tuple[Literal["b", "s"], int, bytes]]:
        """Computes what §4.3 and §4.7 make of the bytes drawn."""
        t = self.context.thresholds.t
        coefficients = [int.from_bytes(bytes([d[0] & 1]) + d[1:], "big") for d in self.draws[3:]]
        of: dict[Literal["b", "s"], list[int]] = {
            "b": [int.from_bytes(self.draws[2], "big"), *coefficients[: t - 1]],
            "s": [int.from_bytes(self.draws[1], "big"), *coefficients[t - 1 : 2 * t - 2]],
        }
        for kind, polynomial in of.items():
            for site in self.keys:
                place = self.context.place(site)
                value = sum(c * pow(place + 1, power, P) for power, c in enumerate(polynomial)) % P
                yield kind, place, value.to_bytes(33, "big")


@dataclass
class Oracle:
    """Collects what left the sites, and checks every coalition that contains the sites that obey the server.

    Attributes:
      context: The one whose floors hold, with every region there is.
      active: Sites that obey the malicious server.
      openings: Region and inputs of each sum of honest sites that some coalition opened, over all attempts.
    """

    context: RoundContext
    active: frozenset[str] = frozenset()
    machines: list[Machine] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    checked: int = 0
    openings: set[tuple[int, frozenset[Symbol]]] = field(default_factory=set)
    _shares: dict[bytes, tuple[Machine, str, int]] = field(default_factory=dict)
    _owners: dict[bytes, Machine] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _judged: dict[frozenset[str], tuple[int, int]] = field(default_factory=dict)

    def violation(self, what: str) -> None:
        if what not in self._seen:
            self._seen.add(what)
            self.violations.append(what)

    def advertised(self, machine: Machine, advert: Advert) -> None:
        self.machines.append(machine)
        machine.advert = advert
        self._owners[advert.c] = self._owners[advert.s] = machine

    def dealt(self, machine: Machine, keys: Mapping[str, Advert]) -> None:
        machine.keys = dict(keys)
        for kind, place, share in machine.shares():
            self._shares[share] = (machine, kind, place)
        for site, advert in keys.items():
            if advert.c not in self._owners:  # sealed to a key that the server made
                for kind in ("b", "s"):
                    machine.revealed[kind].add(self.context.place(site))

    def masked(self, machine: Machine, u2: Iterable[str], regions: Iterable[int]) -> None:
        machine.u2, machine.regions = tuple(u2), tuple(regions)
        self.check()

    def revealed(self, machine: Machine, shares: Iterable[bytes]) -> None:
        """Takes what an UNM shows."""
        for share in shares:
            if share not in self._shares:
                if not self.active:  # a dealer that obeys the server deals what it likes
                    self.violation(f"{machine.site} reveals bytes that are no share")
                continue
            dealer, kind, place = self._shares[share]
            if self.context.cohort[place] != machine.site:
                self.violation(f"{machine.site} reveals a share that is not its own")
            dealer.revealed[kind].add(place)
        self.check()

    def check(self) -> None:
        """Looks at every coalition; nothing can be open before a share was shown."""
        if not any(m.revealed["b"] or m.revealed["s"] for m in self.machines):
            return
        n_c = self.context.thresholds.n_c
        others = [site for site in self.context.cohort if site not in self.active]
        for size in range(n_c - len(self.active) + 1):
            for chosen in combinations(others, size):
                self._check_coalition(self.active | set(chosen))

    def _knows(self, machine: Machine, kind: str, coalition: frozenset[str]) -> bool:
        if machine.site in coalition:
            return True
        t, shown = machine.context.thresholds.t, machine.revealed[kind]
        if not machine.keys or len(shown) + len(coalition) < t:
            return False
        return len(shown | {machine.context.place(site) for site in machine.keys if site in coalition}) >= t

    def _check_coalition(self, coalition: frozenset[str]) -> None:
        self.checked += 1
        private = {m.advert.s for m in self.machines if m.advert is not None and self._knows(m, "s", coalition)}
        # A self mask is in one equation only: unless it is known, that equation opens nothing.
        bare = [m for m in self.machines if m.u2 and m.site not in coalition and self._knows(m, "b", coalition)]
        if self._judged.get(coalition) == (len(bare), len(private)):
            return  # both only grow: nothing new
        self._judged[coalition] = (len(bare), len(private))
        rows: dict[int, list[Row]] = {}
        for machine in bare:
            for k in machine.regions:
                rows.setdefault(machine.names[k], []).append(self._row(machine, k, private))
        for k, equations in rows.items():
            self._judge(coalition, k, opened(equations))

    def _row(self, machine: Machine, k: int, private: set[bytes]) -> Row:
        me, keys = machine.site, machine.keys
        row: Row = {} if k in machine.zero else {("x", me, machine.input_id): 1}
        for u in machine.u2:
            if u == me or u not in machine.context.regions[k].holders:
                continue
            known = {keys[me].s, keys[u].s} & private or keys[u].s not in self._owners
            if not known:
                row["pair", machine.u1, *sorted((me, u))] = 1 if me < u else _FIELD - 1
        return row

    def _judge(self, coalition: frozenset[str], k: int, sums: list[Row]) -> None:
        region = self.context.regions[k]
        limits = self.context.thresholds
        floor = limits.min_survivors if region.holders == self.context.cohort else limits.min_cover
        floor = max(2, floor - len(coalition & set(region.holders)))
        inputs = []
        for total in sums:
            sites = sorted(str(symbol[1]) for symbol in total)
            inputs.append({symbol[2] for symbol in total})
            self.openings.add((k, frozenset(total)))
            if len(sites) < floor or set(total.values()) != {1} or len(inputs[-1]) > 1:
                self.violation(f"region {k}: {sorted(coalition)} opens {sites}; the floor is {floor} honest sites")
        if len({frozenset(i) for i in inputs}) < len(inputs):
            self.violation(f"region {k}: {sorted(coalition)} opens more than one sum of one attempt")


def opened(equations: Iterable[Row]) -> list[Row]:
    """Returns a basis, in reduced form, of the combinations of inputs that are free of unknown masks."""
    _, free = _eliminate(equations, masks_only=True)
    basis, _ = _eliminate(free, masks_only=False)
    return [row for _, row in basis]


def _eliminate(equations: Iterable[Row], *, masks_only: bool) -> tuple[list[tuple[Symbol, Row]], list[Row]]:
    basis: list[tuple[Symbol, Row]] = []
    free: list[Row] = []
    for equation in equations:
        row = dict(equation)
        for known, base in basis:
            _subtract(row, base, row.get(known, 0))
        pivot = next((s for s in row if not masks_only or s[0] != "x"), None)
        if pivot is None:
            if row:
                free.append(row)
            continue
        inverse = pow(row[pivot], -1, _FIELD)
        row = {symbol: value * inverse % _FIELD for symbol, value in row.items()}
        for _, base in basis:
            _subtract(base, row, base.get(pivot, 0))
        basis.append((pivot, row))
    return basis, free


def _subtract(row: Row, base: Row, times: int) -> None:
    if times:
        for symbol, value in base.items():
            left = (row.get(symbol, 0) - times * value) % _FIELD
            if left:
                row[symbol] = left
            else:
                row.pop(symbol, None)
