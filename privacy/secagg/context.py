"""What a whole attempt agrees on: roster, thresholds, regions, model root, and the one digest that binds them (§2).

Symbols: ``n`` sites in the cohort, ``n_c`` of them colluding with the server, ``t`` shares that open a secret,
``H_k`` the sites that hold region ``k``. Everything here is public. A context that breaks a rule cannot be built;
there is no flag for fewer than three sites.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from functools import cached_property
from typing import Any

from privacy.errors import ConfigError, RemoteProtocolError
from privacy.keys.signing import PUBLIC_KEY_BYTES
from privacy.secagg import checked
from privacy.secagg.checked import refuse_unless
from privacy.secagg.encoding import digest, dumps, in_order, is_site_id, loads, u64

VERSION = 1
MIN_SITES = 3
MAX_SITES = 100
MAX_ATTEMPTS = 3
MAX_ENTRIES = 2**32
MAX_TEXT = 1000
MAX_SECONDS = 7 * 86400
DIGEST_BYTES = 32
RUN_BYTES = 16


@dataclass(frozen=True)
class Thresholds:
    """How many sites it takes (§2.2).

    Attributes:
      n_c: Sites that may collude with the server.
      t: Shares that open a secret.
      min_survivors: Fewest sites in U1, U2 and U3.
      min_cover: Fewest holders of an active region among them.
    """

    n_c: int
    t: int
    min_survivors: int
    min_cover: int

    def check(self, n: int) -> None:
        """Refuses thresholds that do not protect a cohort of ``n`` sites.

        Raises: ConfigError: A rule of §2.2 is broken.
        """
        if not MIN_SITES <= n <= MAX_SITES:
            raise ConfigError(
                f"secure aggregation needs {MIN_SITES} to {MAX_SITES} sites, not {n}",
                hint="With two sites each would learn the other's update from the sum; there is no switch for that.",
            )
        if self.n_c < 0 or self.t > n or 2 * self.t <= n + self.n_c:
            raise ConfigError(f"threshold {self.t} does not fit {n} sites of which {self.n_c} may collude")
        if not max(self.t, self.n_c + 2, MIN_SITES) <= self.min_survivors <= n:
            raise ConfigError(f"{self.min_survivors} survivors are too few, or more than the {n} sites there are")
        if self.min_cover < max(MIN_SITES, self.n_c + 2):
            raise ConfigError(f"{self.min_cover} holders of a region are too few against {self.n_c} colluding sites")


def default_n_c(n: int) -> int:
    """Returns ``⌈n/3⌉ - 1``: the largest number below a third of the sites (§2.2)."""
    return (n + 2) // 3 - 1


def thresholds(n: int, n_c: int | None = None) -> Thresholds:
    """Returns the defaults of §2.2 for ``n`` sites; ``n_c`` is below a third of them unless given.

    Raises: ConfigError: No thresholds protect that many sites against that many.
    """
    colluding = default_n_c(n) if n_c is None else n_c
    t = (n + colluding) // 2 + 1
    chosen = Thresholds(colluding, t, max(t, colluding + 2, MIN_SITES), max(MIN_SITES, colluding + 2))
    chosen.check(n)
    return chosen


@dataclass(frozen=True)
class Roster:
    """The sites of a federation and their Ed25519 identity keys, pinned at every site: the server adds nobody.

    Attributes:
      version: Counts up with every change.
      keys: Raw public key, 32 bytes, by site id.
    """

    version: int
    keys: Mapping[str, bytes]

    def __post_init__(self) -> None:
        if self.version < 0 or not all(is_site_id(site) for site in self.keys):
            raise ConfigError("a roster names sites by 1 to 64 of a-z 0-9 . _ -")
        if any(len(key) != PUBLIC_KEY_BYTES for key in self.keys.values()):
            raise ConfigError("a roster holds raw Ed25519 public keys of 32 bytes")
        if len(set(self.keys.values())) != len(self.keys):
            raise ConfigError(
                "two sites of the roster have the same key", hint="One key is one site; else it counts twice."
            )

    @cached_property
    def digest(self) -> bytes:
        """What a context names the roster by."""
        entries = (part for site in sorted(self.keys) for part in (site.encode(), self.keys[site]))
        return digest("roster", u64(self.version), *entries)


@dataclass(frozen=True)
class Block:
    """Consecutive entries of a region under one bound.

    Attributes:
      length: Number of entries.
      bound: Largest absolute value of an entry on the grid, weight included.
    """

    length: int
    bound: int


@dataclass(frozen=True)
class Region:
    """Coordinates that the same sites hold.

    Attributes:
      holders: Site ids, sorted.
      blocks: In the order in which they lie in a site's vector.
    """

    holders: tuple[str, ...]
    blocks: tuple[Block, ...]

    @cached_property
    def length(self) -> int:
        """Entries of all blocks."""
        return sum(block.length for block in self.blocks)

    def check(self, cohort: Sequence[str], bits: int) -> None:
        """Refuses holders outside the cohort, and bounds with which a sum could wrap (§2.3).

        Raises: ConfigError: Such a region.
        """
        if not self.holders or not in_order(self.holders) or not set(self.holders) <= set(cohort):
            raise ConfigError("the holders of a region are sites of the cohort, sorted, without repetition")
        if not self.blocks or any(block.length < 1 or block.bound < 1 for block in self.blocks):
            raise ConfigError("a region has at least one block, with at least one entry and a positive bound")
        if any(len(self.holders) * block.bound >= 1 << (bits - 1) for block in self.blocks):
            raise ConfigError(
                f"a sum of {len(self.holders)} entries could wrap around in {bits} bits",
                hint="Use the 64-bit ring, or fewer fractional bits.",
            )


def region_digest(k: int, length: int, holders: Sequence[str], values_digest: bytes) -> bytes:
    """Returns ``r_k`` (§2.4).

    Args:
      k: Place of the region in the context's list, from 0.
      length: Entries.
      holders: Sorted.
      values_digest: SHA-256 of the region's values that the sites train on.
    """
    return digest("region", u64(k), u64(length), *(site.encode() for site in holders), values_digest)


def model_root(plan_digest: bytes, region_digests: Sequence[bytes]) -> bytes:
    """Returns what a context names the trained-on model by: the plan and every region, in order (§2.4)."""
    return digest("model-root", plan_digest, *region_digests)


@dataclass(frozen=True)
class Durations:
    """Seconds that a site waits, at most, for each message of the server: by its own clock, never a date (§2.1)."""

    keys: int
    fwd: int
    surv: int
    sigs: int


@dataclass(frozen=True)
class RoundContext:
    """Everything that the sites of one attempt must agree on; all public. Fields as in the table of §2.1.

    Raises: ConfigError: A rule of §2 is broken.
    """

    federation: str
    run: bytes
    round: int
    attempt: int
    roster: bytes
    cohort: tuple[str, ...]
    thresholds: Thresholds
    bits: int
    fraction_bits: int
    regions: tuple[Region, ...]
    model_root: bytes
    job: bytes
    purpose: str
    asset: str
    durations: Durations
    fixed_set: bool

    def __post_init__(self) -> None:
        if not all(is_site_id(site) for site in self.cohort) or not in_order(self.cohort):
            raise ConfigError("a cohort is a sorted list of site ids without repetition")  # §1.5
        self.thresholds.check(len(self.cohort))
        if len(self.run) != RUN_BYTES or not 1 <= self.round < 2**32 or not 1 <= self.attempt <= MAX_ATTEMPTS:
            raise ConfigError(f"a run is {RUN_BYTES} bytes, rounds count from 1, attempts from 1 to {MAX_ATTEMPTS}")
        if any(len(value) != DIGEST_BYTES for value in (self.roster, self.model_root, self.job)):
            raise ConfigError("a digest has 32 bytes")
        if any(len(text) > MAX_TEXT for text in (self.federation, self.purpose, self.asset)):
            raise ConfigError(f"a text of the context has more than {MAX_TEXT} characters")
        if self.bits not in {32, 64} or not 0 <= self.fraction_bits < self.bits:
            raise ConfigError("the ring has 32 or 64 bits, the grid fewer fractional bits than that")
        if not all(2 <= seconds <= MAX_SECONDS for seconds in astuple(self.durations)):
            raise ConfigError("a site waits between two seconds and a week")
        if not self.regions:
            raise ConfigError("a context has at least one region")
        for region in self.regions:
            region.check(self.cohort, self.bits)
        if sum(region.length for region in self.regions) > MAX_ENTRIES:
            raise ConfigError("the regions have more than 2^32 entries together")

    def encode(self) -> bytes:
        """Returns the deterministic CBOR of the map in §2.1."""
        return dumps({
            "version": VERSION, "federation": self.federation, "run": self.run, "round": self.round,
            "attempt": self.attempt, "roster": self.roster, "cohort": self.cohort, **asdict(self.thresholds),
            "bits": self.bits, "fraction_bits": self.fraction_bits,
            "regions": [_region_map(region) for region in self.regions], "model_root": self.model_root,
            "job": self.job, "purpose": self.purpose, "asset": self.asset, "durations": astuple(self.durations),
            "fixed_set": self.fixed_set,
        })  # fmt: skip

    @classmethod
    def decode(cls, data: bytes) -> "RoundContext":
        """Reads a context from a stranger.

        Raises: RemoteProtocolError: Another encoding, another version, or a rule of §2 is broken.
        """
        value = checked.exactly(loads(data), _FIELDS)
        checked.number(value["version"], VERSION, VERSION)
        limits = (checked.number(value[name], 0, MAX_SITES) for name in Thresholds.__annotations__)
        durations = (checked.number(seconds, 2, MAX_SECONDS) for seconds in checked.listing(value["durations"], 4))
        try:
            return cls(
                checked.text(value["federation"], MAX_TEXT), checked.octets(value["run"]),
                checked.number(value["round"], 1, 2**32 - 1), checked.number(value["attempt"], 1, MAX_ATTEMPTS),
                checked.octets(value["roster"]), checked.sites(value["cohort"]), Thresholds(*limits),
                checked.number(value["bits"], 32, 64), checked.number(value["fraction_bits"], 0, 63),
                tuple(_region(region) for region in checked.listing(value["regions"])),
                checked.octets(value["model_root"]), checked.octets(value["job"]),
                checked.text(value["purpose"], MAX_TEXT), checked.text(value["asset"], MAX_TEXT),
                Durations(*durations), checked.flag(value["fixed_set"]),
            )  # fmt: skip
        except ConfigError as error:
            raise RemoteProtocolError(str(error)) from None

    @cached_property
    def digest(self) -> bytes:
        """``ctx``: what every message, signature and key of the attempt is bound to."""
        return digest("ctx", self.encode())

    def place(self, site: str) -> int:
        """Returns the site's place in the cohort, from 0; its shares are taken at place + 1 (§4.3)."""
        return self.cohort.index(site)

    def held(self, site: str) -> tuple[int, ...]:
        """Returns the regions that ``site`` holds, ascending."""
        return tuple(k for k, region in enumerate(self.regions) if site in region.holders)

    def carried(self, active: Iterable[int], *sites: str) -> tuple[int, ...]:
        """Returns the regions of ``active`` that every one of ``sites`` holds, in the order of ``active``."""
        return tuple(k for k in active if self._holders[k].issuperset(sites))

    def active(self, u1: Iterable[str]) -> tuple[int, ...]:
        """Returns the regions with at least ``min_cover`` holders in U1, ascending (§3.2)."""
        return tuple(k for k in range(len(self.regions)) if self._cover(k, u1) >= self.thresholds.min_cover)

    def uncovered(self, active: Iterable[int], sites: Iterable[str]) -> int | None:
        """Returns the first active region with fewer than ``min_cover`` holders among ``sites``, held or not."""
        return next((k for k in active if self._cover(k, sites) < self.thresholds.min_cover), None)

    def check_set(self, name: str, sites: Sequence[str], within: Sequence[str], active: Iterable[int] = ()) -> None:
        """Refuses a set of sites that must not be opened, whoever proposes it (§2.5, §3.2, §3.4, §3.6).

        Args:
          name: "U1", "U2" or "U3", for the message.
          sites: The proposed set.
          within: The set it must be a part of.
          active: Active regions; each must keep ``min_cover`` holders, held by this site or not.

        Raises: RemoteProtocolError: Sites from outside, too few, an uncovered region, or not the fixed set.
        """
        floors = self.thresholds
        refuse_unless(set(sites) <= set(within), f"{name} has sites from outside")
        refuse_unless(len(sites) >= floors.min_survivors, f"{name} has fewer than {floors.min_survivors} sites")
        fixed = not self.fixed_set or set(sites) == set(self.cohort)
        refuse_unless(fixed, f"{name} is not the whole cohort, which this context demands")  # §2.5
        weak = self.uncovered(active, sites)
        refuse_unless(weak is None, f"{name} leaves region {weak} with fewer than {floors.min_cover} holders")

    def _cover(self, k: int, sites: Iterable[str]) -> int:
        return len(self._holders[k].intersection(sites))

    @cached_property
    def _holders(self) -> tuple[frozenset[str], ...]:
        return tuple(frozenset(region.holders) for region in self.regions)


_FIELDS = frozenset({"version", *Thresholds.__annotations__, *RoundContext.__annotations__} - {"thresholds"})


def _region_map(region: Region) -> dict[str, Any]:
    return {"holders": region.holders, "blocks": [[block.length, block.bound] for block in region.blocks]}


def _region(value: Any) -> Region:
    region = checked.exactly(value, ("holders", "blocks"))
    return Region(checked.sites(region["holders"]), tuple(_block(block) for block in checked.listing(region["blocks"])))


def _block(value: Any) -> Block:
    length, bound = checked.listing(value, 2)
    return Block(checked.number(length, 1, MAX_ENTRIES), checked.number(bound, 1, 2**63 - 1))
