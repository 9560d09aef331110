"""What a plan gives away, told before anybody trains: who would see what, and what was measured at each cut."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from simulations.planning.leakage import Attacked, CutLeakage, Leakage
from strategies.cuts import Cut
from strategies.planner import Chain

_NOT_MEASURED = "Leakage: not measured; --leakage attacks every cut."
_LEGEND = (
    "rebuilt: mean squared error of inputs made from the activations; guessing the mean record {guess:.3g}.",
    "recognised: how often that is nearest to the right one of {attacked} records; guessing {chance:.2g}. Both are",
    "open to whoever has the part behind the cut. Labels, to whoever has the part before it: area under the ROC curve,",
    "from the lengths of gradients that come back, or from their directions beside one known record's; guessing 0.5.",
    "Records: {provenance}. The epoch has {trained}, the inverter {own} of them.",
    "Figures for these records and attacks, without a release's noise: no bounds. Who has the front itself recognises",
    "every record that is among its own.",
)


def sees(chain: Chain, home: str, nodes: Sequence[str], *, train: bool) -> list[dict[str, str]]:
    """Returns which device sees what in the clear, or with a release's noise; all public.

    Args:
      chain: Who does what.
      home: The device with the records.
      nodes: Names of the boundaries between inputs and output.
      train: Whether labels and gradients are about.
    """
    inputs, seen = "inputs" if train else "queries", list[tuple[str, str, str]]()
    seen += [(inputs, "", home), *([("labels", "", home)] if train else [])]
    for hop in chain.hops:
        if hop.boundary == 0:
            seen.append((inputs, "", hop.taker.name))
        elif hop.boundary > len(nodes):
            seen.append(("labels" if train else "answers", "", hop.giver.name))
        else:
            at = nodes[hop.boundary - 1]
            seen.append(("activations", at, hop.taker.name))
            if train:
                seen.append(("gradients", at, hop.giver.name))
    return [{"what": what, "at": at, "device": device} for what, at, device in seen]


def seen_words(seen: Sequence[dict[str, str]]) -> str:
    """Returns one line that says who sees what."""
    found: dict[str, list[str]] = {}
    for each in seen:
        what = f"{each['what']} at {each['at']}" if each["at"] else each["what"]
        found.setdefault(what, []).append(each["device"])
    return "Seen: " + "; ".join(f"{what} by {' and '.join(devices)}" for what, devices in found.items()) + "."


def leakage_table(leakage: Leakage, cuts: Sequence[Cut]) -> Table:
    """Returns the sheet's columns of what was measured, before and after an epoch."""
    table = Table(
        title="Leakage at each cut: untrained, after one epoch", title_justify="left", header_style="bold",
        box=SIMPLE_HEAD,
    )  # fmt: skip
    table.add_column("after", overflow="fold")
    for heading in ("rebuilt", "recognised", "labels by length", "by direction"):
        table.add_column(heading, justify="right")
    for cut in cuts:
        both = leakage.cuts[cut.node]
        table.add_row(
            cut.node, _pair(both, "error"), _pair(both, "recognised"), _pair(both, "norm_auc"),
            _pair(both, "cosine_auc"),
        )  # fmt: skip
    return table


def leakage_words(leakage: Leakage | None) -> Iterator[str]:
    """Yields what the columns mean and what they were measured on, or that nothing was measured."""
    if leakage is None:
        yield _NOT_MEASURED
        return
    for line in _LEGEND:
        yield line.format(chance=1 / leakage.attacked, **vars(leakage))


def leakage_json(leakage: Leakage) -> dict[str, Any]:
    """Returns what the figures were measured on; those of each cut are the cut's."""
    return {
        "provenance": leakage.provenance,
        "trained": leakage.trained,
        "own": leakage.own,
        "attacked": leakage.attacked,
        "guess": _round(leakage.guess),
    }


def cut_json(leakage: Leakage | None, cut: Cut) -> dict[str, Any] | None:
    """Returns the figures of one cut; ``None`` if nothing was measured."""
    if leakage is None:
        return None
    both = leakage.cuts[cut.node]
    return {"untrained": _attacked_json(both.untrained), "epoch": _attacked_json(both.epoch)}


def _attacked_json(found: Attacked) -> dict[str, float | None]:
    return {key: None if value is None else _round(value) for key, value in asdict(found).items()}


def _pair(both: CutLeakage, name: str) -> str:
    values = [getattr(each, name) for each in (both.untrained, both.epoch)]
    return "-" if None in values else ", ".join(f"{value:.2f}" if value >= 0.1 else f"{value:.1g}" for value in values)


def _round(value: float) -> float:
    return round(value, 4)  # the last digits depend on the machine
