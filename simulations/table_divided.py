"""The closing table of a divided model: who trained which part, what it sent and scores, and was it worth it."""

from collections.abc import Iterator
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from privacy.audit import division_words
from simulations.evidence import submodels_of
from simulations.outcome import Outcome


def parts(found: dict[str, Any]) -> Table:
    """Returns the table of the parts, with a row for each federation without division.

    Args:
      found: The ``submodels`` of the report.
    """
    table = Table(title="Parts of the model", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("part", overflow="fold")
    table.add_column("sites", overflow="fold")
    for heading in ("parameters", "upload", "score"):
        table.add_column(heading, justify="right")
    most = max(part["upload_bytes"] for part in found["parts"]) or 1
    for part in found["parts"]:
        upload = f"{part['upload_bytes']:,} B ({100 * part['upload_bytes'] / most:.1f} %)"
        scores = " ".join(map(_score, part["score"]))
        table.add_row(part["name"], ", ".join(part["sites"]), f"{part['parameters']:,}", upload, scores)
    smallest, strong = found["baselines"]["smallest"], found["baselines"]["strong"]
    if len(found["parts"]) > 1:
        table.add_section()
        table.add_row(f"everyone on {smallest['part']}", "", "", "", _score(smallest["score"]))
        if strong is not None:
            table.add_row(f"{strong['part']} sites alone", "", "", "", _score(strong["score"]))
    return table


def lines(outcome: Outcome) -> Iterator[str]:
    """Yields what the table means, which regions there are, and whether a baseline did better."""
    found = submodels_of(outcome)
    if found is None:
        return
    rows = {str(site): len(outcome.data[site].test.y) for site in outcome.job.sites}
    yield (
        "upload: masked numbers that a site sends in an attempt at a round, beside those of the largest part. "
        + division_words.about_scores(found)
    )
    yield division_words.about_regions(found)
    yield division_words.about_still(found, len(outcome.trained.rounds))
    yield from division_words.about_baselines(found, rows, _score, private=bool(outcome.job.privacy))


def _score(value: str | None) -> str:
    return "-" if value is None else f"{float(value):.3f}"
