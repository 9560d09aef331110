"""What a divided model came to, in words, from the ``submodels`` of a report; the closing table and the page use both.

Plain text; nothing is markup.
"""

from collections.abc import Callable, Mapping
from typing import Any

from privacy.audit.words import count, number

_MOST_NAMED = 5

Written = Callable[[str | None], str]
"""How a score is written, which differs between terminal and page."""


def about_scores(found: Mapping[str, Any]) -> str:
    """Says what the scores of the parts are scores of."""
    if found["baselines"] is None:
        return "Scores of the parts stay at the sites that hold them."
    own = any(set(part["scored_at"]) != set(found["baselines"]["smallest"]["sites"]) for part in found["parts"])
    where = "the test rows of the sites that hold it, since each keeps some parameters to itself"
    exits = "; of every exit, the last one last" if any(len(part["score"]) > 1 for part in found["parts"]) else ""
    return f"Score of a part: that of the delivered model cut to it, on {where if own else 'all test rows'}{exits}."


def about_regions(found: Mapping[str, Any]) -> str:
    """Says how many sums a round has, and how many sites may be missing before one of them cannot be opened."""
    regions, floor, slack = found["regions"], found["floor"], found["slack"]
    fewest = min(len(region["holders"]) for region in regions)
    if slack > 0:
        left = f"slack {slack}: so many holders may be missing before a region stands still"
    elif slack == 0:
        left = "zero slack: one missing holder makes such a region stand still"
    else:
        left = "a region with fewer holders is never summed and keeps its initial values"
    return (
        f"Regions: {count(len(regions), 'set')} of parameters, each held by the same sites and summed by itself; fewest"
        f" holders {fewest}, a sum takes {floor}, {left}."
    )


def about_slack(found: Mapping[str, Any]) -> list[str]:
    """Says which regions the loss of one holder stops, and which never move; nothing if every region has slack."""
    held, floor = [len(region["holders"]) for region in found["regions"]], found["floor"]
    lines, least, below = [], held.count(floor), sum(n < floor for n in held)
    if below:
        lines.append(
            f"Regions with fewer holders than the {floor} sites that a sum takes: {below} of {len(held)}. They are"
            " never summed and keep their initial values."
        )
    if least:
        lines.append(
            f"Regions with no more holders than the {floor} sites that a sum takes: {least} of {len(held)} (zero"
            " slack). One missing holder makes such a region stand still."
        )
    return lines


def about_still(found: Mapping[str, Any], n_rounds: int) -> str:
    """Says which regions no sum moved, and in how many of the rounds."""
    still = [(k, region) for k, region in enumerate(found["regions"]) if region["still"]]
    if not still:
        return "No region stood still in any round."
    named = [
        f"region {k} ({count(region['parameters'], 'parameter')} of {count(len(region['holders']), 'site')})"
        f" in {number(region['still'])} of {count(n_rounds, 'round')}"
        for k, region in still[:_MOST_NAMED]
    ]
    more = f", and {count(len(still) - _MOST_NAMED, 'more region')}" if len(still) > _MOST_NAMED else ""
    return f"Stood still, parameters as they were: {', '.join(named)}{more}."


def about_baselines(found: Mapping[str, Any], rows: Mapping[str, int], written: Written, *, private: bool) -> list[str]:
    """Says whether dividing the model was worth it: against the smallest part for all, and the strong sites alone.

    Args:
      found: The ``submodels`` of a report.
      rows: Test rows by site: they weigh the scores of parts that are scored at their own sites only.
      written: Writes a score.
      private: Whether the run was private; its baselines never are.
    """
    if len(found["parts"]) == 1 or found["baselines"] is None:
        return []
    lines = []
    for baseline, who, does in (
        (found["baselines"]["smallest"], "Everyone on the smallest model", "does"),
        (found["baselines"]["strong"], "The sites with the largest model alone", "do"),
    ):
        if baseline is None:
            continue
        (ours, what), theirs = _delivered(found, baseline["scored_at"], rows), baseline["score"]
        if ours is None or theirs is None:
            continue
        how = "the same" if float(theirs) == ours else "better" if float(theirs) > ours else "worse"
        lines.append(f"{who} {does} {how} here: {written(theirs)} against {written(f'{ours:.4f}')} {what}.")
    if private and lines:
        lines.append("Baselines are trained without privacy, the divided model with it.")
    return lines


def _delivered(found: Mapping[str, Any], at: list[str], rows: Mapping[str, int]) -> tuple[float | None, str]:
    """Returns the score of what the run delivered at these sites, and what it is the score of.

    Where every part is scored there, that of the largest part. Where parts are scored at their own sites, because of
    private parameters, the mean over the parts of these sites by test rows, as accuracy over all rows would be.
    """
    parts = [max(found["parts"], key=lambda part: int(part["parameters"]))]
    what = "with the largest part of the divided model"
    if len(parts[0]["score"]) > 1:
        what += ", last exit"
    if set(parts[0]["scored_at"]) != set(at):
        parts = [part for part in found["parts"] if set(part["scored_at"]) <= set(at)]
        what = "with the divided model, at the same sites"
    scores = [part["score"][-1] for part in parts]
    weights = [sum(rows.get(site, 0) for site in part["scored_at"]) for part in parts]
    if None in scores or not sum(weights):
        return None, what
    total = sum(float(score) * weight for score, weight in zip(scores, weights, strict=True))
    return round(total / sum(weights), 4), what
