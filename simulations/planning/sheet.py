"""What `collegium plan` prints: the cut sheet, what each device can hold alone, and the chain; and the same as JSON."""

from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from simulations.planning.calibrate import Calibration
from simulations.planning.calibrate import to_json as calibration_json
from simulations.planning.calibrate import words as calibration_words
from simulations.planning.disclosure import cut_json, leakage_json, leakage_table, leakage_words, seen_words, sees
from simulations.planning.leakage import Leakage
from strategies.analysis import Analysis
from strategies.chain_plan import ChainPlan, Optimizer, StageSpec
from strategies.cover import Cover, covers
from strategies.cuts import Cut, Piece
from strategies.devices import Devices
from strategies.planner import Chain, Hop, Objective, Part, Profile, Workload
from strategies.release import Release

_LEGEND = (
    "share: of the parameters, before the cut. of inputs: numbers that cross, against numbers in the inputs. Whatever",
    "its size, what crosses is personal data; from 100 % on expect the inputs to be recovered.",
)

SCHEMA = "collegium/plan/v1"


@dataclass(frozen=True)
class Proposal:
    """Everything that one run of the command found out.

    Attributes:
      parts: What each device can hold alone, in the file's order.
      pieces: One for each stage of the chain.
      refused: Why there is no chain; empty if there is one.
      leakage: What attacks made of the cuts; ``None`` if nobody asked.
      calibration: What the devices were measured to take; ``None``: figures are those of the devices file.
    """

    name: str
    analysis: Analysis
    cuts: tuple[Cut, ...]
    profile: Profile
    devices: Devices
    work: Workload
    objective: Objective
    parts: tuple[Part, ...]
    chain: Chain | None
    pieces: tuple[Piece, ...]
    refused: str
    leakage: Leakage | None = None
    calibration: Calibration | None = None

    def node(self, boundary: int) -> str:
        """Returns the name of a boundary."""
        return ("inputs", *self.profile.nodes, "output")[boundary]

    def step_bytes(self, cut: Cut) -> int:
        """Returns what crosses a cut for one micro-batch: the value, and in training its gradient."""
        return cut.bytes * (2 if self.work.train else 1)


def to_json(found: Proposal) -> dict[str, Any]:
    """Returns the object that ``--json`` prints."""
    analysis, chain, runs = found.analysis, found.chain, _runs(found)
    return {
        "schema": SCHEMA,
        "model": found.name,
        "analysis": {
            "parameters": analysis.parameters,
            "flops": analysis.flops,
            "operations": len(analysis.nodes),
            "records": analysis.records,
            "estimated": [node.name for node in analysis.nodes if node.estimated],
            "tied": sorted(sorted(group) for group in analysis.tied),
            "unused_keys": sorted(analysis.unused),
            "notes": list(analysis.notes),
        },
        "work": _work_json(found.work),
        "cuts": [_cut_json(found, cut) for cut in found.cuts],
        "plan": {
            device.name: {
                "organisation": device.organisation,
                "memory_limit": device.memory,
                "alone": {"kind": part.kind, "end": part.end, "ratio": part.ratio, "memory": part.memory},
                "memory": sum(each["memory"] for each in stages),
                "stages": stages,
            }
            for device, part in zip(found.devices.devices, found.parts, strict=True)
            for stages in [_stages_json(found, device.name)]
        },
        "cover": [_cover_json(cover) for cover in _covers(found)],
        "hops": [] if chain is None else [_hop_json(found, hop) for hop in chain.hops],
        "cost": None if chain is None else _cost_json(found.objective, chain),
        "refused": found.refused,
        "chain": None if runs is None else runs.body(),
        "chain_digest": None if runs is None else runs.digest,
        "sees": _seen(found),
        "leakage": None if found.leakage is None else leakage_json(found.leakage),
        "measured": None if found.calibration is None else calibration_json(found.calibration),
    }


def _runs(found: Proposal) -> ChainPlan | None:
    """Returns the chain in the form that runs; ``None`` where nobody but the first device has a piece."""
    home = found.devices.devices[0]
    if found.chain is None or all(stage.device == home for stage in found.chain.stages):
        return None
    stages = zip(found.chain.stages, found.pieces, strict=True)
    return ChainPlan(
        model=found.name,
        home=home.name,
        owner=home.organisation,
        stages=tuple(StageSpec(each.device.name, each.device.organisation, *astuple(piece)) for each, piece in stages),
        train=found.work.train,
        optimizer=cast("Optimizer", found.work.optimizer),
        micro_batch=found.analysis.records,
        in_flight=found.chain.in_flight,
        releases=tuple(each for each in found.devices.releases if each.owner == home.organisation),
    )


def _work_json(work: Workload) -> dict[str, Any]:
    return {"train": work.train, "optimizer": work.optimizer if work.train else None, "in_flight": work.in_flight}


def _cover_json(cover: Cover) -> dict[str, Any]:
    part = cover.part
    held = {"organisations": list(cover.organisations), "floor": cover.floor}
    return {"kind": part.kind, "end": part.end, "ratio": part.ratio, **held}


def _cost_json(objective: Objective, chain: Chain) -> dict[str, Any]:
    return {
        "objective": str(objective),
        "latency": chain.latency,
        "period": chain.period,
        "in_flight": chain.in_flight,
    }


def _cut_json(found: Proposal, cut: Cut) -> dict[str, Any]:
    return {
        "node": cut.node,
        "what": cut.what,
        "head_flops": cut.head_flops,
        "tail_flops": cut.tail_flops,
        "head_params": cut.head_params,
        "head_bytes": cut.head_bytes,
        "tail_bytes": cut.tail_bytes,
        "bytes": cut.bytes,
        "step_bytes": found.step_bytes(cut),
        "share": cut.share,
        "shared_keys": list(cut.shared_keys),
        "input_ratio": cut.input_ratio,
        "note": cut.note,
        "leakage": cut_json(found.leakage, cut),
    }


def _stages_json(found: Proposal, device: str) -> list[dict[str, Any]]:
    stages = found.chain.stages if found.chain else ()
    return [
        {
            "stage": number,
            "start": piece.start,
            "end": piece.end,
            "flops": stage.flops,
            "seconds": stage.seconds,
            "memory": stage.memory,
            "keys": list(piece.keys),
            "digest": piece.digest,
        }
        for number, (stage, piece) in enumerate(zip(stages, found.pieces, strict=True), start=1)
        if stage.device.name == device
    ]


def _hop_json(found: Proposal, hop: Hop) -> dict[str, Any]:
    return {
        "from": hop.giver.name,
        "to": hop.taker.name,
        "at": found.node(hop.boundary),
        "seconds": hop.seconds,
        "releases": [{"what": str(what), "to": to, "terms": terms} for what, to, terms in _terms(found, hop)],
    }


def _terms(found: Proposal, hop: Hop) -> Iterator[tuple[str, str, str]]:
    """Yields what passes under a release, to whom, and on which terms."""
    for what, taker in hop.released:
        release = found.devices.release(what, taker)
        if isinstance(release, Release):
            terms = (
                f"clip {release.clip:g}, noise {release.noise:g} times that, each record at most {release.most} times"
            )
            yield what, taker.name, terms
        elif release is not None:
            yield what, taker.name, f"UNSAFE, as they are: {release.reason}"


def show(found: Proposal, console: Console) -> None:
    """Prints the sheet."""
    analysis = found.analysis
    _say(
        console,
        f"{found.name}: {amount(analysis.parameters)} parameters, {amount(analysis.flops, 'FLOP')} forward"
        f" for {analysis.records} records, {len(analysis.nodes)} operations.",
    )
    for line in _remarks(found):
        _say(console, line)
    if found.cuts:
        console.print(_cut_table(found))
        for line in _LEGEND:
            _say(console, line)
        if found.leakage is not None:
            console.print(leakage_table(found.leakage, found.cuts))
        for line in leakage_words(found.leakage):
            _say(console, line)
    console.print(_alone_table(found))
    for line in _cover_words(found):
        _say(console, line)
    if found.chain is None:
        _say(console, f"No chain: {found.refused}.")
        return
    console.print(_chain_table(found, found.chain))
    for line in _words(found, found.chain):
        _say(console, line)


def _remarks(found: Proposal) -> Iterator[str]:
    for note in found.analysis.notes:
        yield f"Note: {note}."
    for group in sorted(sorted(group) for group in found.analysis.tied):
        yield f"Note: {' and '.join(group)} are one tensor; cuts between its uses are marked and never planned."
    if found.analysis.unused:
        yield f"Note: no operation uses {', '.join(sorted(found.analysis.unused))}."
    if not found.cuts:
        yield "No valid cut: nowhere does exactly one tensor cross."


def _table(title: str, left: tuple[str, ...], right: tuple[str, ...], last: str) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for heading in left:
        table.add_column(heading, overflow="fold")
    for heading in right:
        table.add_column(heading, justify="right")
    table.add_column(last, overflow="fold")
    return table


def _cut_table(found: Proposal) -> Table:
    table = _table(
        "Cuts: where exactly one tensor crosses",
        ("after", "layer"),
        ("FLOP before", "after", "weights before", "after", "bytes a step", "share", "of inputs"), "",
    )  # fmt: skip
    for cut in found.cuts:
        table.add_row(
            cut.node, cut.what, amount(cut.head_flops), amount(cut.tail_flops), amount(cut.head_bytes, "B"),
            amount(cut.tail_bytes, "B"), amount(found.step_bytes(cut), "B"), _percent(cut.share),
            _percent(cut.input_ratio), "" if not cut.shared_keys else "tied",
        )  # fmt: skip
    return table


def _alone_table(found: Proposal) -> Table:
    doing = f"training with {found.work.optimizer}" if found.work.train else "inference"
    table = _table(
        f"Alone: what fits each device, {doing}", ("device", "organisation"),
        ("memory", "needed"), "holds",
    )  # fmt: skip
    for device, part in zip(found.devices.devices, found.parts, strict=True):
        needed = amount(part.memory, "B") if part.kind != "none" else "-"
        table.add_row(device.name, device.organisation, amount(device.memory, "B"), needed, _holds(part))
    return table


def _covers(found: Proposal) -> tuple[Cover, ...]:
    """Returns what could be summed if every device trained what it holds; nothing is summed in inference."""
    if not found.work.train:
        return ()
    owners = [device.organisation for device in found.devices.devices]
    return covers(list(zip(owners, found.parts, strict=True)), found.profile.nodes)


def _cover_words(found: Proposal) -> Iterator[str]:
    for cover in _covers(found):
        holders = len(cover.organisations)
        has = f"{_holds(cover.part)}: held by {holders} organisation{'' if holders == 1 else 's'}"
        if not cover.floor:
            yield f"Cover: {has}; below three organisations nothing is summed."
        elif cover.moves:
            slack = "zero slack" if holders == cover.floor else f"{holders - cover.floor} to spare"
            yield f"Cover: {has}, a sum takes {cover.floor}: {slack}."
        else:
            yield f"Cover: {has}, a sum takes {cover.floor}: what no smaller part has would stand still."


def _holds(part: Part) -> str:
    if part.kind == "whole":
        return "the whole model"
    if part.kind == "depth":
        return f"the front up to {part.end}, with an exit head"
    if part.kind == "width":
        return f"a slice: about 1/{round(1 / part.ratio)} of the width"
    return "nothing: even 1/16 of the width is too much"


def _chain_table(found: Proposal, chain: Chain) -> Table:
    best = "least latency" if found.objective is Objective.LATENCY else "most micro-batches a second"
    table = _table(
        f"Together: one chain over the devices, {best}", ("stage", "device", "from", "to"),
        ("FLOP", "compute", "memory"), "then",
    )  # fmt: skip
    for number, stage in enumerate(chain.stages, start=1):
        hops = [hop for hop in chain.hops if hop.boundary == stage.end]
        sent = "" if not hops or not hops[0].seconds else f"{span(hops[0].seconds)} on the line"
        table.add_row(
            str(number), stage.device.name, found.node(stage.start), found.node(stage.end), amount(stage.flops),
            span(stage.seconds), amount(stage.memory, "B"), sent,
        )  # fmt: skip
    return table


def _words(found: Proposal, chain: Chain) -> Iterator[str]:
    batch = f"a micro-batch of {found.analysis.records} records"
    what = "forward and backward" if found.work.train else "forward"
    if found.calibration is not None:
        yield from calibration_words(found.calibration, span)
    yield f"Estimate: {batch} takes {span(chain.latency)}, {what}; compute is {span(_compute(chain))} of it."
    if found.objective is Objective.THROUGHPUT:
        yield f"With {chain.in_flight} under way, one is done every {span(chain.period)}."
    idle = [each.name for each in found.devices.devices if each not in {stage.device for stage in chain.stages}]
    if idle:
        yield f"Left out, since they would not help or may not: {', '.join(idle)}."
    for hop in chain.hops:
        if hop.boundary == 0:
            yield f"The inputs go from {hop.giver.name} to {hop.taker.name} first: {span(hop.seconds)}."
        for crossing, taker, terms in _terms(found, hop):
            yield f"Released to {taker}, another organisation's: {crossing}; {terms}."
    yield seen_words(_seen(found))
    shut = sorted({each.organisation for each in found.devices.devices if _shut(found, each.organisation)})
    if shut:
        owner = found.devices.devices[0].organisation
        yield f"Nothing of {owner}'s may reach {', '.join(shut)}: there is no release."


def _seen(found: Proposal) -> list[dict[str, str]]:
    if found.chain is None:
        return []
    return sees(found.chain, found.devices.devices[0].name, found.profile.nodes, train=found.work.train)


def _shut(found: Proposal, organisation: str) -> bool:
    owner = found.devices.devices[0].organisation
    return organisation != owner and not any(each.to == organisation for each in found.devices.releases)


def _compute(chain: Chain) -> float:
    return sum(stage.seconds for stage in chain.stages)


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def _percent(ratio: float) -> str:
    return f"{100 * ratio:.0f} %" if ratio == 0 or ratio >= 0.1 else f"{100 * ratio:.2g} %"


def amount(value: float, unit: str = "") -> str:
    """Returns a number to three digits with a decimal prefix."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def span(seconds: float) -> str:
    """Returns a time to three digits in a fitting unit."""
    if seconds >= 1 or seconds == 0:
        return f"{seconds:.3g} s"
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"
