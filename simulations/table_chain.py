"""The closing table of a cut model: split training beside the whole model, and what the holder was shown."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from privacy.audit import crossings
from server.releases import releases
from simulations.outcome import Outcome


def beside(outcome: Outcome) -> Table | None:
    """Returns the scores of split training and of the whole model at every site; nothing where no model was cut."""
    chain, divided = outcome.job.chain, outcome.divided
    if chain is None or divided is None:
        return None
    private = " (without privacy)" if outcome.job.privacy else ""
    (ends,) = divided.parts
    table = Table(
        title="Split training beside the whole model, same seed", title_justify="left", header_style="bold",
        box=SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("trained", overflow="fold")
    table.add_column("parameters at a site", justify="right")
    table.add_column("score", justify="right")
    table.add_row(
        f"{ends.name} at the sites, the rest at {chain.holder}", f"{ends.parameters:,}", f"{_score(ends.score[-1])}"
    )
    whole = outcome.job.plan.layout.size
    table.add_row(f"the whole model at every site{private}", f"{whole:,}", f"{_score(divided.smallest.score)}")
    return table


def unprotected(outcome: Outcome) -> list[str]:
    """Returns what left its organisation as it is, a line for each reason."""
    attempts = sum(record.attempts for record, _ in outcome.trained.rounds)
    return [f"UNPROTECTED: {line}." for line in crossings.unprotected({**releases(outcome.job, attempts)})]


def lines(outcome: Outcome) -> Iterator[str]:
    """Yields what split training means here."""
    chain = outcome.job.chain
    if chain is None:
        return
    yield (
        "Where every site answers in every round, a cut changes what is learnt without privacy by rounding alone. In a"
        f" private run the piece at {chain.holder} keeps its initial parameters: what it learnt from one record would"
        " show in the gradients of others."
    )
    if outcome.job.privacy:
        yield f"No epsilon here holds against {chain.holder}: it saw values of single records besides."


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
