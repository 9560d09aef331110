"""Deals the rows of one table to sites by a public, seeded rule: a benchmark of one owner becomes the data of several.

Nothing here is private: who is dealt which rows is part of the experiment. Real sites have their own rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from privacy.errors import ConfigError
from strategies.task import SiteId
from strategies.task_file import StrictTable, is_number

NOBODY = -1
"""Stands for the site of a row that is dealt to none."""

Kind = Literal["shares", "dirichlet", "classes"]
KINDS: tuple[Kind, ...] = ("shares", "dirichlet", "classes")
"""How rows can be dealt: see `Deal`."""

_ROUNDING = 1e-9  # ten tenths make a little more or less than one
_MOST_DRAWS = 1000
_FEWEST_ROWS = 10  # as in most published code for this; fewer would not split into train and test
_FEWEST_OF_CLASS = 2

_Labels = npt.NDArray[np.int64]
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class OnlyAt:
    """Classes whose rows go to some sites alone."""

    classes: tuple[int, ...]
    sites: tuple[SiteId, ...]


@dataclass(frozen=True)
class Deal:
    """A rule for dealing rows; all public. What another kind would read may be there, so that kinds can be compared.

    Attributes:
      kind: ``shares``: rows in random order, to each site its share. ``dirichlet``: of each class, to each site a share
        drawn from a Dirichlet distribution. ``classes``: some classes go to some sites alone, all else by shares.
      shares: For every site, in the scenario's order, the fraction of rows it gets, in (0, 1]; in all at most 1.
      alpha: Concentration of ``dirichlet``: the smaller, the less alike the sites.
      only: What ``classes`` deals to some alone; no class is there twice.
      seed: Decides everything that is random here.

    Raises: ConfigError: A kind ``classes`` that says of no class where it goes.
    """

    kind: Kind
    shares: Mapping[SiteId, float]
    alpha: float = 0.5
    only: tuple[OnlyAt, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind == "classes" and not self.only:
            raise ConfigError(
                "rows cannot be dealt by classes: the scenario says of no class where it goes",
                hint="Add to [data.deal]: only = [{ classes = [...], sites = [...] }].",
            )


def deal_rows(labels: _Labels, rule: Deal) -> _Rows:
    """Decides for every row whose it is.

    Guarantees: a function of its arguments; no row is dealt twice. By shares, a site's number of rows is within one of
    its share of them (of each group, where classes are apart). By ``dirichlet`` every row is dealt, and every site has
    ten rows or more and at least two of each of two classes: Yurochkin et al., ICML 2019, after Hsu, Qi and Brown 2019,
    who draw each site's mix of classes instead of each class's mix of sites.

    Args:
      labels: The class of each row, shape ``(n,)``.
      rule: What to follow.

    Returns: Index of the site in ``rule.shares`` or `NOBODY`, shape ``(n,)``.
    Raises: ConfigError: No draw leaves every site enough.
    """
    rng = np.random.default_rng(rule.seed)
    if rule.kind == "dirichlet":
        return _by_dirichlet(labels, rule, rng)
    owner = np.full(len(labels), NOBODY, dtype=np.int64)
    shares = np.array(list(rule.shares.values()))
    apart = np.zeros(len(labels), dtype=np.bool_)
    for entry in rule.only if rule.kind == "classes" else ():
        members = np.isin(labels, entry.classes)
        theirs = np.where([site in entry.sites for site in rule.shares], shares, 0.0)
        # Together they get as much of these rows as all sites get of the others.
        _hand_out(owner, np.flatnonzero(members), theirs * (shares.sum() / theirs.sum()), rng)
        apart |= members
    _hand_out(owner, np.flatnonzero(~apart), shares, rng)
    return owner


def _by_dirichlet(labels: _Labels, rule: Deal, rng: np.random.Generator) -> _Rows:
    classes, class_of = np.unique(labels, return_inverse=True)
    owner = np.full(len(labels), NOBODY, dtype=np.int64)
    for _ in range(_MOST_DRAWS):
        for index in range(len(classes)):
            drawn = rng.dirichlet(np.full(len(rule.shares), rule.alpha))
            _hand_out(owner, np.flatnonzero(class_of == index), drawn, rng)
        counts = np.zeros((len(rule.shares), len(classes)), dtype=np.int64)
        np.add.at(counts, (owner, class_of), 1)
        if counts.sum(axis=1).min() >= _FEWEST_ROWS and (counts >= _FEWEST_OF_CLASS).sum(axis=1).min() > 1:
            return owner
    raise ConfigError(
        f"{_MOST_DRAWS} draws with alpha = {rule.alpha:g} left some site fewer than {_FEWEST_ROWS} rows, or one class",
        hint="Raise alpha under [data.deal]: the smaller it is, the more rows of a class go to one site.",
    )


def _hand_out(owner: _Rows, rows: _Rows, shares: npt.NDArray[np.float64], rng: np.random.Generator) -> None:
    """Deals these rows in random order, in place; rounded cumulative shares put every count within one of its own."""
    bounds = np.rint(np.cumsum(shares) * len(rows)).astype(np.int64)
    dealt = rng.permutation(rows)[: bounds[-1]]
    owner[dealt] = np.searchsorted(bounds, np.arange(len(dealt)), side="right")


def parse_deal(
    table: StrictTable, sites: Sequence[SiteId], *, at_sites: Mapping[SiteId, float], n_classes: int
) -> Deal:
    """Reads ``[data.deal]``.

    Args:
      table: The table. Public.
      sites: All sites of the scenario, in its order.
      at_sites: The shares that the sites' own entries name.
      n_classes: Labels are below this.

    Raises: ConfigError: Anything missing, misspelt, of a wrong type or contradictory.
    """
    chosen = table.choice("kind", KINDS)
    deal = Deal(
        kind=next(kind for kind in KINDS if kind == chosen),
        shares=_shares(table, sites, at_sites),
        alpha=table.number("alpha", Deal.alpha, above=0.0),
        only=_only(table.tables("only", optional=True), sites, n_classes),
        seed=table.whole("seed", Deal.seed),
    )
    table.close()
    return deal


def _shares(table: StrictTable, sites: Sequence[SiteId], at_sites: Mapping[SiteId, float]) -> dict[SiteId, float]:
    """Takes the shares of all sites, in their order; the same for everybody if none is named."""
    listed = table.table("shares", optional=True)
    if double := [site for site in at_sites if site in listed]:
        raise table.error("shares", f"the share of {double[0]!r} is in its entry of sites already")
    named = {**at_sites, **{site: listed.number(site) for site in sites if site in listed}}
    listed.close()
    if not named:
        return dict.fromkeys(sites, 1.0 / len(sites))
    if without := [site for site in sites if site not in named]:
        raise table.error("shares", f"{without[0]!r} has none, others have", hint="Give every site a share, or none.")
    shares = {site: named[site] for site in sites}
    for site, share in shares.items():
        if not 0.0 < share <= 1.0:
            raise table.error("shares", f"the share of {site!r} must be above 0 and at most 1, not {share:g}")
    if sum(shares.values()) > 1.0 + _ROUNDING:
        raise table.error("shares", f"add up to {sum(shares.values()):g}, which is more than all rows")
    return shares


def _only(entries: Sequence[StrictTable], sites: Collection[SiteId], n_classes: int) -> tuple[OnlyAt, ...]:
    found: list[OnlyAt] = []
    for entry in entries:
        classes, holders = entry.scalars("classes"), entry.texts("sites")
        if not classes or not holders:
            raise entry.error("", "must list at least one class and one site")
        if unknown := [name for name in holders if name not in sites]:
            raise entry.error("sites", f"{unknown[0]!r} is no site of this scenario")
        numbers = tuple(int(label) for label in classes if is_number(label) and label in range(n_classes))
        if len(numbers) < len(classes):
            raise entry.error("classes", f"must be whole numbers from 0 to {n_classes - 1}")
        if any(set(numbers) & set(other.classes) for other in found):
            raise entry.error("classes", "has a class that another entry has")
        found.append(OnlyAt(numbers, tuple(SiteId(name) for name in holders)))
        entry.close()
    return tuple(found)
