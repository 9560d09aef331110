"""``collegium plan``: where a model can be cut, and who could hold which part of it."""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from clients.chain.installed import Installed
from privacy.errors import ConfigError
from privacy.store.run_folder import RunFolder
from privacy.store.site_folder import SiteFolder
from simulations.planning.calibrate import Calibration, installed, over_channel
from simulations.planning.calibrate import calibrate as calibrate_devices
from simulations.planning.leakage import Leakage, measure
from simulations.planning.model import analysed, with_records
from simulations.planning.plot import draw
from simulations.planning.sheet import Proposal, amount, show, to_json
from strategies import planner
from strategies.cuts import Cut, Piece, find_cuts, split
from strategies.devices import Devices, read_devices
from strategies.planner import OPTIMIZERS, Objective, Workload

PLAN_FILE = "plan.json"
PLOT_FILE = "plan.svg"
_MOST_IN_FLIGHT = 64
_REFUSED = 1


def plan(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    model: Annotated[str, typer.Argument(show_default=False)],
    devices: Annotated[Path, typer.Option(help="TOML file of devices; the first has the data.", show_default=False)],
    objective: Annotated[str, typer.Option(help="latency or throughput.")] = "latency",
    inference: Annotated[bool, typer.Option("--inference", help="Only answer queries; by default: train.")] = False,
    optimizer: Annotated[str, typer.Option(help="sgd, momentum or adam.", show_default="the scenario's, or adam")] = "",
    in_flight: Annotated[
        int | None,
        typer.Option(help="Most micro-batches under way.", show_default="as many as devices, for throughput"),
    ] = None,
    blocks: Annotated[
        str, typer.Option(help="Submodules that run one after another, with commas: for models that cannot be traced.")
    ] = "",
    leakage: Annotated[
        bool, typer.Option("--leakage", help="Attack every cut on public or made-up records: seconds a cut.")
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Measure the devices first, as the site of this folder: `stage serve --measure`."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json and plan.svg; new or empty.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")] = False,
) -> None:
    """Analyse MODEL, a scenario's name or module:factory, list its valid cuts, and propose who holds what."""
    goal = Objective(_choice("--objective", objective, tuple(Objective)))
    _choice("--optimizer", optimizer, ("", *OPTIMIZERS))
    _check_in_flight(in_flight, goal)
    there = read_devices(devices)
    folder = None if out is None else _folder(out)
    names = [name.strip() for name in blocks.split(",")] if blocks else []
    with _clock(f"analysing {model}"), redirect_stdout(sys.stderr):  # a factory may print; stdout is ours
        analysis, own = analysed(model, train=not inference, blocks=names)
        cuts = find_cuts(analysis)
    most = (in_flight or len(there.devices)) if goal is Objective.THROUGHPUT else 1
    work = Workload(train=not inference, optimizer=optimizer or own, in_flight=most)
    profile, by_node = planner.profile(analysis, cuts), {cut.node: cut for cut in cuts}
    found_out = None
    if calibrate is not None:
        segments = split(analysis.trace, [by_node[node] for node in profile.nodes])
        found_out = _measured(calibrate, installed(model, names), segments, there, work, analysis.records)
        there, work = found_out.devices(there), found_out.work(work)
    with _clock("planning"):
        chain = planner.plan(profile, there, work, goal)
    ends = () if chain is None else tuple(by_node[profile.nodes[stage.end - 1]] for stage in chain.stages[:-1])
    found = Proposal(
        name=model, analysis=analysis, cuts=cuts, profile=profile, devices=there, work=work, objective=goal,
        parts=tuple(planner.alone(profile, device, work) for device in there.devices),
        chain=chain,
        pieces=() if chain is None else split(analysis.trace, ends),
        refused="" if chain else _why(profile, there, work),
        leakage=_leakage(model, cuts, names, train=not inference) if leakage and cuts else None,
        calibration=found_out,
    )  # fmt: skip
    _write(found, folder, as_json=as_json)
    if chain is None:
        raise typer.Exit(_REFUSED)


def _measured(
    folder: Path, own: Installed, segments: Sequence[Piece], devices: Devices, work: Workload, records: int
) -> Calibration:
    with _clock("measuring") as told, redirect_stdout(sys.stderr), over_channel(SiteFolder(folder), devices) as dial:
        return calibrate_devices(own, segments, devices, work, dial, records=records, told=told)


def _leakage(model: str, cuts: Sequence[Cut], blocks: Sequence[str], *, train: bool) -> Leakage:
    with _clock(f"building {model} with weights") as told, redirect_stdout(sys.stderr):
        analysis, sample, training = with_records(model, train=train, blocks=blocks)
        return measure(analysis, cuts, sample, training, gradients=train, told=told)


def _choice(option: str, given: str, options: tuple[str, ...]) -> str:
    if given not in options:
        raise ConfigError(
            f"there is no {option} {given!r}", hint=f"Choose one of: {', '.join(each for each in options if each)}."
        )
    return given


def _check_in_flight(given: int | None, goal: Objective) -> None:
    if given is not None and not 1 <= given <= _MOST_IN_FLIGHT:
        raise ConfigError(f"--in-flight must be from 1 to {_MOST_IN_FLIGHT}, not {given}")
    if given is not None and goal is Objective.LATENCY:
        raise ConfigError("--in-flight has no effect on latency", hint="Add --objective throughput, or leave it out.")


@contextmanager
def _clock(text: str) -> Iterator[Callable[[str], None]]:
    """Shows what goes on and for how long, on a terminal; yields what changes the text."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(text)
        yield lambda new: progress.update(task, description=new)


def _why(profile: planner.Profile, devices: Devices, work: Workload) -> str:
    """Says whether memory or organisations stand in the way."""
    whole = amount(replace(work, in_flight=1).memory(profile, 0, len(profile.segments)), "B")
    one = tuple(replace(device, organisation="") for device in devices.devices)
    if planner.plan(profile, Devices(one), work, Objective.LATENCY) is None:
        return f"no cut makes pieces that fit the devices; the whole model takes {whole}"
    owner = devices.devices[0].organisation
    return (
        f"{owner} has too little memory for the whole model ({whole}), and its releases do not let enough pass"
        " to other organisations"
    )


def _folder(path: Path) -> RunFolder:
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(f"{path} exists and is not an empty folder", hint="Choose another --out.")
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}", hint="Choose another --out.") from None
    return RunFolder(path)


def _write(found: Proposal, folder: RunFolder | None, *, as_json: bool) -> None:
    text = json.dumps(to_json(found), indent=2) + "\n"
    if folder is not None:
        folder.write(PLAN_FILE, text.encode())
        folder.write(PLOT_FILE, draw(found).encode())
    if as_json:
        sys.stdout.write(text)
        return
    # Piped output gets no terminal's width to guess from.
    show(found, Console() if sys.stdout.isatty() else Console(width=120))
    if folder is not None:
        typer.echo(f"Plan: {folder.path / PLAN_FILE}; picture: {folder.path / PLOT_FILE}.")
