"""``collegium server``: what a coordinator does: let the sites in, run what the charter lists, go on after a crash."""

import asyncio
import logging
import os
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from privacy.charter.document import SETTINGS
from privacy.command_line import seconds
from privacy.errors import ConfigError, TransportError
from privacy.store.run_folder import MODEL_FILE, REPORT_FILE, RUN_FILE, read_file
from privacy.store.site_folder import SiteFolder
from server.admission import Peers
from server.authority import account, authorise
from server.exchange import Timing
from server.launcher import Listener, serve
from server.lock import is_driven
from server.real_run import RUNS_FOLDER, SOCKET, Coordinator
from strategies.invitation import in_reach, resolve_job
from strategies.job import Job
from strategies.refusals import unit_of
from strategies.study import Study
from strategies.task import SiteId

server = typer.Typer(name="server", no_args_is_help=True, add_completion=False)

_STOPPED = 4  # exit code: stopped on purpose, with everything done so far kept
_READABLE = {"model": MODEL_FILE, "report": REPORT_FILE}
_FIRST_POLL = 0.05  # seconds; sites need some ten times that for anything

_Folder = Annotated[Path, typer.Argument(show_default=False, help="The coordinator's folder.")]
_Run = Annotated[str, typer.Argument(show_default=False, help="Name of the run.")]
_Deadline = Annotated[
    float, typer.Option(callback=seconds, help="Seconds to wait for the sites' answers to one question.")
]


@server.callback()
def overview() -> None:
    """Coordinate a federation: start the server, run a strategy, resume, look."""


@server.command("start")
def start(folder: _Folder) -> None:
    """Let the sites of the charter connect, until told to stop; runs are begun with `collegium server run`."""
    os.umask(0o077)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    opened = SiteFolder(folder)
    settings = opened.server_settings
    opened.log().check()
    (opened.path / SOCKET.parent).mkdir(mode=0o700, exist_ok=True)
    tls = opened.tls(_now())
    host, port = settings.listen
    listener = Listener(host, port, tls.certificate, tls.key, tls.root)

    def ready(public: int) -> None:
        _say(f"{opened.holder.uri} listens on {host}:{public} under version {opened.charter.version} of the charter")

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(listener, lambda: peers_of(opened), opened.path / SOCKET, ready=ready, stop=stop, report=_say)

    asyncio.run(until_told())
    _say("stopped")


@server.command("run")
def run(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    strategy: Annotated[str, typer.Argument(show_default=False, help="One that the charter lists.")],
    folder: _Folder,
    asset: Annotated[str, typer.Option(help="On which data, as the charter names it.", show_default=False)],
    purpose: Annotated[str, typer.Option(help="What for.")] = "training",
    privacy: Annotated[list[str] | None, typer.Option(help="none, record, site, distributed; may be repeated.")] = None,
    epsilon: Annotated[str, typer.Option(help="Of the whole run.")] = "1",
    delta: Annotated[str, typer.Option(help="Of the whole run.")] = "0.001",
    seed: Annotated[int, typer.Option(help="Of the initial model and of batches without noise.")] = 42,
    settings: Annotated[list[str] | None, typer.Option("--set", help="key=value, of the training or strategy.")] = None,
    sites: Annotated[str, typer.Option(help="Sites to invite, by comma; all of the study by default.")] = "",
    name: Annotated[str, typer.Option(help="Of the run; made up by default.")] = "",
    deadline: _Deadline = 60.0,
) -> None:
    """Run STRATEGY with the sites that are connected, to a model and a report."""
    coordinator, user = _opened(folder), account()
    authorise(coordinator.folder, "start", _now(), user=user, strategy=strategy)
    job = _job(coordinator.study, strategy, privacy or ["record"], epsilon, delta, seed, settings or [], sites)
    called = name or f"{coordinator.study.name}-{_now():%Y%m%d-%H%M%S}"
    invitation = coordinator.invite(job, run=called, purpose=purpose, asset=asset)
    coordinator.begin(job, invitation)
    _drive(coordinator, called, deadline)


@server.command("resume")
def resume(
    run: _Run,
    folder: _Folder,
    deadline: _Deadline = 60.0,
) -> None:
    """Go on with RUN after a crash: from the last round that was completed, what was half-done a new attempt."""
    coordinator = _opened(folder)
    coordinator.invited_to(run)
    authorise(coordinator.folder, "resume", _now(), user=account())
    _drive(coordinator, run, deadline)


@server.command("stop")
def stop(run: _Run, folder: _Folder) -> None:
    """Stop the process that drives RUN; everything up to its last complete round is kept, and `resume` goes on."""
    coordinator = _opened(folder)
    authorise(coordinator.folder, "stop", _now(), user=account())
    told = coordinator.status(run)
    if not told:
        raise ConfigError(f"there is no run {run}", hint="collegium server status lists them.")
    if not is_driven(coordinator.path_of(run)):
        raise ConfigError(f"nothing drives {run} at the moment; it is {told['status']}")
    os.kill(int(told["pid"]), signal.SIGTERM)
    typer.echo(f"{run} was told to stop")


@server.command("read")
def read(
    what: Annotated[str, typer.Argument(show_default=False, help="model or report.")],
    run: _Run,
    folder: _Folder,
    out: Annotated[Path, typer.Option(help="New file to write it to.", show_default=False)],
) -> None:
    """Hand out the model or the report of RUN to whoever may read it."""
    if what not in _READABLE:
        raise ConfigError(f"there is no {what!r} to read", hint=f"There is: {', '.join(_READABLE)}.")
    coordinator = _opened(folder)
    authorise(coordinator.folder, f"read-{what}", _now(), user=account())
    data = read_file(coordinator.path_of(run) / _READABLE[what])
    try:
        with out.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error
    typer.echo(f"{what} of {run}: {out} ({len(data)} bytes)")


@server.command("status")
def status(folder: _Folder) -> None:
    """Show what runs there are and how they stand."""
    opened = SiteFolder(folder)
    authorise(opened, "read-status", _now(), user=account())
    coordinator = Coordinator.opened(opened, _now, _say)
    found = sorted((opened.path / RUNS_FOLDER).glob(f"*/{RUN_FILE}"))
    for path in found:
        try:
            told = coordinator.status(path.parent.name)
        except ConfigError as error:
            typer.echo(f"{path.parent.name}  {error}")
            continue
        privacy = "+".join(told["privacy"]) or "none"
        typer.echo(
            f"{told['run']}  {told['status']}  {told['strategy']}, privacy {privacy}, {len(told['sites'])} sites"
        )
    if not found:
        typer.echo("no run yet")


def peers_of(folder: SiteFolder) -> Peers:
    """Returns who may connect, by the charter that is in force now."""
    charter = folder.charter
    keys = {site.uri: site.flower for site in charter.sites.values() if site.uri and site.flower}
    return Peers(charter.federation, keys, frozenset(charter.revoked))


def _drive(coordinator: Coordinator, run: str, deadline: float) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: run.toml then says how it stands
    try:
        done = coordinator.drive(run, Timing(deadline=deadline, first_poll=_FIRST_POLL))
    except TransportError as error:
        again = f"collegium server resume {run} {coordinator.folder.path}"
        raise TransportError(str(error), hint=f"Start the server again if it ended, then: {again}.") from error
    path = coordinator.path_of(run)
    typer.echo(f"{len(done.rounds)} rounds, model {path / MODEL_FILE}")
    if done.stopped:
        typer.echo(f"stopped early: {done.stopped}", err=True)
        raise typer.Exit(_STOPPED)


def _job(  # what a person asked for
    study: Study,
    strategy: str,
    privacy: Sequence[str],
    epsilon: str,
    delta: str,
    seed: int,
    settings: Sequence[str],
    sites: str,
) -> Job:
    chosen = tuple(name for name in SETTINGS if name in privacy)
    odd = sorted(set(privacy) - {"none", *SETTINGS})
    if odd:
        raise ConfigError(f"--privacy {odd[0]} is none of: none, {', '.join(SETTINGS)}")
    given = dict(_pair(text) for text in settings)
    unit = given.pop("unit", "")
    parameters = {key: _number(f"--set {key}", value) for key, value in given.items()}
    wanted = [SiteId(site) for site in sites.split(",") if site] or list(study.sites)
    strangers = [site for site in wanted if site not in study.sites]
    if strangers:
        raise ConfigError(f"the study lists no site {strangers[0]!r}", hint=f"It lists {', '.join(study.sites)}.")
    terms = {"seed": seed, "epsilon": _number("--epsilon", epsilon), "delta": _number("--delta", delta)}
    listed = tuple(site for site in study.sites if site in wanted)
    return resolve_job(study, strategy, parameters, sites=listed, privacy=chosen, unit=unit_of(unit, chosen), **terms)


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set takes key=value, not {text!r}")
    return key, value


def _number(name: str, text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ConfigError(f"{name} must be a number, not {text!r}") from None
    if not in_reach(value):
        raise ConfigError(f"{name} must be a finite number between 1e-30 and 1e30, or 0")
    return value


def _opened(folder: Path) -> Coordinator:
    os.umask(0o077)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    return Coordinator.opened(SiteFolder(folder), _now, _say)


def _say(line: str) -> None:
    typer.echo(f"{_now():%Y-%m-%d %H:%M:%S} {line}")


def _now() -> datetime:
    return datetime.now(UTC)
