"""What the report's terms mean, in words for people who decide and do not compute. Plain text; nothing is markup."""

import math
from typing import Any

from privacy.dp.accounting import posterior_from_even_odds

SERIES = {
    "home": "home: the site's own model, at home",
    "elsewhere": "elsewhere: the other sites' own models, here (mean)",
    "together_without_privacy": "together, without privacy",
    "together": "together: the common model",
    "pooled": "pooled: one model on all rows (not private)",
}

# Name, what it did where it was on, what its absence means: the reader of a report needs the second as much.
PROTECTIONS = {
    "record_dp": (
        "Record-level differential privacy",
        "Each site clipped every record's influence and added noise before anything left it.",
        "No site added noise that would hide a single record in the updates it sent.",
    ),
    "secagg": (
        "Secure aggregation",
        "The coordinator could open only the sum of the sites' updates.",
        "The coordinator saw each site's update by itself.",
    ),
    "distributed_dp": (
        "Noise shared between sites",
        "The sites added noise in shares under the masks, so that nobody ever held the sum without noise.",
        "The sites did not share noise.",
    ),
    "site_dp": (
        "Site-level differential privacy",
        "The coordinator added noise to every sum, which bounds what the model tells about a whole site.",
        "The coordinator added no noise that would hide what a site as a whole contributed.",
    ),
    "tls": (
        "Encrypted connections",
        "Messages between the parties were encrypted, and both ends were authenticated.",
        "Messages between the parties were not encrypted.",
    ),
}

KINDS = {
    "proved": "Follows by arithmetic from this document and the file it names by digest; anybody can redo it.",
    "attested": "The holder of the signing key states it; a file at hand can be compared with it.",
    "measured": "Was observed in this run, with the uncertainty given.",
    "asserted": (
        "The software states what it did; the arithmetic can be redone, that the steps ran as listed cannot be shown "
        "by a document."
    ),
}

RELATIONS = {
    "replace_special": "the same data with one {0} blanked out; the number of {0}s is public",
}

PLACEMENTS = {
    "local": "Noise at each site, in every step",
    "central": "Noise at the server, on every opened sum",
    "distributed": "Shares of noise from every site, under the masks",
}

FROM_WHOM = {
    "local": (
        "Everyone outside the site that holds the record: the coordinator, the other sites, and whoever receives the "
        "model or sees what the site sent."
    ),
    "central": (
        "Whoever receives the model or any state of it. Not the server: it adds the noise itself and sees every sum "
        "without it; nor anybody with whom it shares that."
    ),
    "distributed": (
        "The server, and whoever receives the model: nobody holds a sum without noise. A site knows its own share, and "
        "sites in league know all of theirs; against them those shares do not count."
    ),
}
"""Against whom a claim holds, for people."""

NOT_HOLDER = " Not the holder of the cut model's piece: it saw values of single records besides, see there."
"""What follows where a model was cut."""

SUSPECTED = {
    "record": ("a given person's record was in the training set", "person"),
    "patient": ("a given patient's records were in the training set", "patient"),
    "site": ("a given site's data went into the model", "site"),
}
"""What a suspicion is about, and about whom it is."""

SHARED = {
    "record": "somebody with several records is protected less.",
    "patient": "somebody with records at several sites is protected less.",
    "site": "a single record is hidden as a part of all that its site puts in.",
}
"""What the unit means for people."""

AGAINST = {
    "local": "everyone outside the site that holds the {unit}",
    "central": "whoever receives the model, not the server",
    "distributed": "whoever sees sums that hold {counted} or more shares of noise unknown to them",
}
"""Whom an epsilon holds against, by the place where the noise is added."""

BUT_HOLDER = ", but for the holder of the cut model's piece, who saw more"
"""What a cut model takes away from whom a claim holds against."""

AGAINST_UNEQUAL = (
    "whoever sees sums of regions that hold as many shares of noise unknown to them as are counted on, {counted} where"
    " the holders are fewest"
)
"""Whom shares of noise hold against where sites hold different parts: more holders bring smaller shares each."""

FILTERS = {
    "gdp": "a Gaussian filter",
    "renyi": "a Rényi filter of order {order}",
}
"""How spending over all runs is summed up; both stay valid when runs are planned by people who saw the runs before."""

NOISE = {True: "exact integers", False: "floating point"}
"""How noise was drawn, by whether all of it was exact."""

ENGINES = {
    "local": "all parties in one process (a simulation)",
    "ray": "Flower's simulation on Ray",
    "flwr": "Flower",
    "sites": "sites in their own networks, over mutual TLS",
}

STATUSES = {
    "finished": "finished",
    "interrupted": "interrupted before its end",
    "stopped": "stopped before its end by a privacy budget",
}

SINGLE_UPDATES = "The server sees every site's single update: there was no secure aggregation."
"""What the server sees where no round was masked."""


def sums_seen(n: int, n_c: int, floor: int, *, fixed_set: bool, unequal: bool = False) -> str:
    """Says what the server can open of ``n`` sites, ``n_c`` of them in league with it; one sum a region if unequal."""
    league = (
        f"in league with {n_c} of them, sums over {floor - n_c} or more"
        if n_c
        else "nothing is claimed against a server in league with one of them"
    )
    subtract = "" if fixed_set else " Sums over different survivors can be subtracted."
    sums = "sums of regions of the model, each" if unequal else "sums"
    return f"The server sees {sums} over at least {floor} of {n} sites; {league}.{subtract}"


def chance(epsilon: float) -> tuple[float, str]:
    """Returns the most that a 50 % suspicion can rise to, as a number and as people read it ("74 %"): rounded up."""
    after = posterior_from_even_odds(epsilon)
    if after <= 0.99:
        return after, f"{math.ceil(after * 100)} %"
    return after, f"{math.ceil(after * 10_000) / 100:.2f} %" if after < 0.9999 else "nearly 100 %"


def against(claim: dict[str, Any], *, unequal: bool, cut: bool) -> str:
    """Says whom a claim of differential privacy holds against, and under which condition.

    Args:
      claim: Of a report.
      unequal: Whether sites held different parts of the model.
      cut: Whether somebody held a piece of a cut model.
    """
    counted = next((row["shares"] for row in claim.get("hypothetical", []) if row["counted"]), 0)
    said = AGAINST_UNEQUAL if unequal and claim["placement"] == "distributed" else AGAINST[claim["placement"]]
    return said.format(unit=claim["unit"], counted=counted) + (BUT_HOLDER if cut else "")


def filter_name(lifetime: dict[str, Any]) -> str:
    """Names the filter by which a lifetime is summed up."""
    return FILTERS[lifetime["filter"]].format(order=lifetime["order"])


def sampling(events: list[dict[str, Any]], unit: str) -> str:
    """Says how records, patients or sites entered the steps of all events; sites always all take part."""
    drawn = [event["sampling"] for event in events if "sampling" in event]
    rates = sorted({one["rate"] for one in drawn if one["type"] != "full"}, key=float)
    caps = sorted({one["cap"] for one in drawn if "cap" in one})
    parts = []
    if len(drawn) < len(events) or any(one["type"] == "full" for one in drawn):
        parts.append(f"every {unit} in every {'round' if unit == 'site' else 'step'} (no amplification is claimed)")
    if rates:
        span = rates[0] if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
        most = f", at most {', '.join(map(str, caps))} at once" if caps else ""
        parts.append(f"each {unit} by its own coin (Poisson, rate {span}{most})")
    return "; ".join(parts) or "no step was executed"


def score(value: str | None, metric: str) -> str:
    """Writes a score: accuracy in percent with one decimal, AUC with three decimals."""
    if value is None:
        return "–"
    return f"{float(value) * 100:.1f} %" if metric == "accuracy" else f"{float(value):.3f}"


def interval(ends: list[str] | None, metric: str) -> str:
    """Writes an interval in the form of its score."""
    if ends is None:
        return "–"
    low, high = (score(end, metric) for end in ends)
    return f"{low.removesuffix(' %')}–{high}"


def size(n_bytes: int) -> str:
    """Writes a number of bytes with three digits and a decimal unit."""
    amount, unit = float(n_bytes), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.0f} {unit}" if amount >= 100 or unit == "B" else f"{amount:.3g} {unit}"


def number(n: int) -> str:
    """Writes a whole number, its thousands apart by narrow spaces."""
    return f"{n:,}".replace(",", "\u202f")


def count(n: int, noun: str) -> str:
    """Writes a number with its noun: "1 site", "4 sites"."""
    return f"{number(n)} {noun if n == 1 else noun + 's'}"
