"""``collegium simulate`` and ``collegium scenarios``."""

import json
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from privacy.errors import ConfigError
from simulations.data.datasets import at_hand
from simulations.engines import run_local, run_ray
from simulations.export import export
from simulations.harness import Experiment
from simulations.job import Job, resolve
from simulations.members import data_home
from simulations.options import Options, parse_settings, to_decimal
from simulations.outcome import Outcome
from simulations.progress import LiveObserver, Observer, PlainObserver
from simulations.scenario import load, names
from simulations.summary import to_json
from simulations.table import show

ENGINES = ("local", "ray")
_STOPPED = 4  # on purpose, with everything done so far kept


def simulate(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    scenario: Annotated[str, typer.Argument(show_default=False)],
    rounds: Annotated[int | None, typer.Option(help="Rounds; the scenario's by default.")] = None,
    seed: Annotated[
        int, typer.Option(help="Orders batches and initial weights; privacy noise never depends on it.")
    ] = 42,
    sites: Annotated[int | None, typer.Option(help="Only the first N sites take part; at least 3.")] = None,
    strategy: Annotated[
        str, typer.Option(help="fedavg, fedprox, fedadam, fedyogi, fedadagrad or scaffold.")
    ] = "fedavg",
    privacy: Annotated[
        list[str] | None,
        typer.Option(
            help="none, record, site or distributed; record and distributed may be given together.",
            show_default="record",
        ),
    ] = None,
    epsilon: Annotated[str, typer.Option(help="Privacy target for the whole run.")] = "1",
    delta: Annotated[str, typer.Option(help="Probability mass outside the epsilon bound.")] = "0.001",
    secagg: Annotated[
        bool, typer.Option("--secagg/--no-secagg", help="Mask updates so that the server sees sums only.")
    ] = True,
    ledgers: Annotated[
        Path | None,
        typer.Option(help="Folder of budget ledgers that outlast the run; by default new ones in the run folder."),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="Most epsilon that a site's records may cost over all runs; needs --ledgers.")
    ] = "0",
    engine: Annotated[str, typer.Option(help="local (this process) or ray.")] = "local",
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="key=value, any number of times: learning_rate, local_steps, batch, clip, retries, rows,"
            " update_clip, unit (record or site), deadline (seconds), deal (shares, dirichlet, classes),"
            " agent.SITE (torch, scikit-learn), fault.SITE (silent, late:SECONDS, nan, raises), or a setting of the"
            " strategy.",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder; by default a new one under runs/.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")] = False,
) -> None:
    """Run SCENARIO, a name or a TOML file of your own: train together, compare, sign a report."""
    signal.signal(signal.SIGTERM, _interrupt)
    for name, value in (("--rounds", rounds), ("--sites", sites)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
    if engine not in ENGINES:
        raise ConfigError(f"there is no engine {engine!r}", hint=f"Choose one of: {', '.join(ENGINES)}.")
    options = Options(
        scenario=scenario,
        rounds=rounds or 0,
        seed=seed,
        sites=sites or 0,
        strategy=strategy,
        privacy=_privacy(privacy),
        epsilon=to_decimal("epsilon", epsilon),
        delta=to_decimal("delta", delta),
        secagg=secagg,
        ledgers="" if ledgers is None else str(ledgers.absolute()),
        budget=to_decimal("budget", budget),
        settings=parse_settings(setting or []),
        out=str(out or _new_folder(scenario)),
    )
    outcome = _run(resolve(options), options, engine, plain=as_json)
    if as_json:
        sys.stdout.write(json.dumps(to_json(outcome), indent=2) + "\n")
    else:
        # Piped output gets no terminal's width to guess from.
        show(outcome, Console() if sys.stdout.isatty() else Console(width=110))
    if outcome.trained.stopped:
        raise typer.Exit(_STOPPED)


def scenarios(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on stdout.")] = False,
    wanted: Annotated[str, typer.Option("--export", help="Write a scenario as real sites would hold it.")] = "",
    out: Annotated[str, typer.Option(help="New folder for --export.")] = "",
) -> None:
    """List scenarios: data, licence, sites, rows, whether it is at hand and how to get it."""
    if wanted or out:
        _export(wanted, out)
        return
    listed = [_describe(name) for name in names()]
    if as_json:
        sys.stdout.write(json.dumps({"schema": "collegium/scenarios/v1", "scenarios": listed}, indent=2) + "\n")
        return
    for one in listed:
        typer.echo(f"{one['name']}: {one['title']}")
        typer.echo(f"  {one['sites']} sites, {one['rows']} rows; {one['owner']}; {one['licence']}")
        typer.echo(f"  data: {one['at_hand']}")
        for line in one["notes"].strip().splitlines():
            typer.echo(f"  {line.strip()}")


def _export(wanted: str, out: str) -> None:
    if not (wanted and out):
        raise ConfigError("--export takes a scenario and --out a new folder", hint="Give both.")
    made = export(wanted, Path(out), data_home())
    for site, path in made.tables.items():
        typer.echo(f"{site}: {path}")
    typer.echo(f"study: {made.study}")
    typer.echo(f"in [asset.NAME] of site.toml: {', '.join(f'{key} = {value}' for key, value in made.settings.items())}")


def _describe(name: str) -> dict[str, Any]:
    scenario = load(name)
    return {
        "name": scenario.name,
        "title": scenario.title,
        "owner": scenario.owner,
        "licence": scenario.licence,
        "sites": len(scenario.sites),
        "rows": scenario.n_rows,
        "at_hand": at_hand(scenario, data_home()),
        "notes": scenario.notes,
    }


def _run(job: Job, options: Options, engine: str, *, plain: bool) -> Outcome:
    console = Console(stderr=True)
    if plain or not console.is_terminal:
        return _start(job, options, engine, PlainObserver(sys.stderr))
    with LiveObserver(console) as observer:
        return _start(job, options, engine, observer)


def _start(job: Job, options: Options, engine: str, observer: Observer) -> Outcome:
    def prepare(run_id: int) -> Experiment:
        return Experiment.prepare(job, options, Path(options.out), engine=engine, run_id=run_id, observer=observer)

    return run_ray(prepare, job) if engine == "ray" else run_local(prepare)


def _privacy(given: list[str] | None) -> str:
    """Joins what was given, in one order; what cannot be joined is refused where options are checked."""
    return "+".join(sorted(given or ["record"], key=lambda name: (name != "record", name)))


def _new_folder(scenario: str) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")[:-3]
    return Path("runs") / f"{Path(scenario).stem}-{stamp}"


def _interrupt(_signal: int, _frame: object) -> None:
    raise KeyboardInterrupt
