"""What the report's terms mean, in words for people who decide and do not compute. Plain text; nothing is markup."""

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
        "What can be learnt about a single record from the updates and from the model is not bounded.",
    ),
    "secagg": (
        "Secure aggregation",
        "The coordinator could open only the sum of the sites' updates.",
        "The coordinator saw each site's update by itself.",
    ),
    "distributed_dp": (
        "Noise shared between sites",
        "The sites added noise in shares, so that only the noisy sum exists.",
        "The sites did not share noise.",
    ),
    "site_dp": (
        "Site-level differential privacy",
        "Noise bounds what can be learnt about a whole site.",
        "What a site as a whole contributed, and that it took part, is not hidden.",
    ),
    "tls": (
        "Encrypted connections",
        "Messages between the parties were encrypted, and both ends were authenticated.",
        "Messages between the parties were not encrypted.",
    ),
}

KINDS = {
    "proved": "Follows by arithmetic from this document; anybody can redo it.",
    "attested": "The holder of the signing key states it; a file at hand can be compared with it.",
    "measured": "Was observed in this run, with the uncertainty given.",
    "asserted": (
        "The software states what it did; the arithmetic can be redone, that the steps ran as listed cannot be shown "
        "by a document."
    ),
}

RELATIONS = {
    "replace_special": "the same data with one record blanked out; the number of records is public",
}

ENGINES = {
    "local": "all parties in one process (a simulation)",
    "ray": "Flower's simulation on Ray",
    "flwr": "Flower",
}

STATUSES = {
    "finished": "finished",
    "interrupted": "interrupted before its end",
    "stopped": "stopped on purpose before its end",
}


def chance(epsilon: float) -> tuple[float, str]:
    """Returns the most that a 50 % suspicion can rise to, as a number and as people read it ("73 %")."""
    after = posterior_from_even_odds(epsilon)
    if after < 0.995:
        return after, f"{after * 100:.0f} %"
    return after, f"{after * 100:.2f} %" if after < 0.9999 else "nearly 100 %"


def sampling(events: list[dict[str, str]]) -> str:
    """Says how records entered the steps, from the ``sampling`` objects of all events."""
    rates = sorted({event["rate"] for event in events if event["type"] == "poisson"}, key=float)
    parts = []
    if any(event["type"] == "full" for event in events):
        parts.append("every record in every step (no amplification is claimed)")
    if rates:
        span = rates[0] if len(rates) == 1 else f"{rates[0]} to {rates[-1]}"
        parts.append(f"each record by its own coin (Poisson, rate {span})")
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
