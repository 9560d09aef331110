"""``collegium stage serve``: the process that works at stages of chains for other agents."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from clients.chain.held import HELD_FOLDER
from clients.chain.installed import Installed
from clients.chain.invited import by_invitation
from clients.chain.measure import KIND as MEASURE
from clients.chain.measure import MeasureService
from clients.chain.opening import PeerDial
from clients.chain.request import KIND as STAGE
from clients.chain.request import StageRequest
from clients.chain.service import Allowed, Authorise, StageService
from clients.channel.credentials import Identity
from clients.channel.dialler import Dialler
from clients.channel.limits import Limits
from clients.channel.listener import Listener
from clients.channel.reception import Service
from clients.channel_gate import ChannelGate
from clients.resident import stop_on_signals
from privacy.command_line import seconds
from privacy.errors import ConfigError, VerificationError
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from privacy.store.site_settings import ChannelSettings
from strategies.chain_plan import decode_chain_plan
from strategies.study import Study, read_study

LOCK = "stage.lock"
_LOOK = 1.0  # seconds between two looks at the emergency stop
_GRACE = 2.0  # seconds for what is under way when the process is told to stop

stage = typer.Typer(help="Serve a stage of a chain to other agents.", no_args_is_help=True, add_completion=False)


@stage.callback()
def _group() -> None:
    """Keeps ``serve`` a word of its own although it is the only one."""


@stage.command()
def serve(
    folder: Annotated[Path, typer.Argument(help="The site's folder.", show_default=False)],
    device: Annotated[
        str, typer.Option(help="Name of this machine in plans.", show_default="any of this organisation")
    ] = "",
    listen: Annotated[str, typer.Option(help="HOST:PORT.", show_default="as site.toml says")] = "",
    model: Annotated[
        str, typer.Option(help="module:factory of the model.", show_default="the model of the site's study")
    ] = "",
    blocks: Annotated[str, typer.Option(help="With --model: as in `collegium plan`.")] = "",
    deadline: Annotated[
        float,
        typer.Option(
            min=1, callback=seconds, help="Seconds in mid-step without a word from a neighbour that end a chain."
        ),
    ] = 30.0,
    measure: Annotated[
        bool, typer.Option("--measure", help="Let the other sites time pieces and the line: `plan --calibrate`.")
    ] = False,
) -> None:
    """Hold pieces of models for the chains that the charter allows, until stopped."""
    os.umask(0o077)
    opened = SiteFolder(folder)
    with opened.locked(LOCK):
        settings = _channel(opened)
        installed = _installed(opened, model, blocks)
        own = Identity.of_folder(opened, _now)
        limits, log = Limits(), opened.log()

        def record(entry: Record) -> None:
            log.append([entry], opened.identity)

        dialler = Dialler(own, limits=limits)
        held = StageService(
            site=own.site,
            device=device,
            installed=installed,
            authorise=_authorise(opened, model),
            gate=ChannelGate.of_folder(opened, _now).hold,
            dial=PeerDial(dialler, lambda: _channel(opened).peers),
            held=opened.path / HELD_FOLDER,
            record=record,
            deadline=deadline,
        )
        services: dict[str, Service] = {STAGE: held}
        if measure:
            services[MEASURE] = MeasureService(installed, lambda: opened.paused, record)
        address = listen or settings.listen
        if not address:
            raise ConfigError("site.toml does not say where to listen", hint="Add listen under [channel], or --listen.")
        with Listener(address, own, services, limits=limits, record=record) as listener:
            _greet(opened, installed, f"{address.rpartition(':')[0]}:{listener.port}", device=device, measure=measure)
            _serve(opened, held)
        dialler.close()
        _say("stopped")


def allowed(peer: str, request: StageRequest) -> Allowed:
    """Reads the plan of a request that comes without a run's papers: whether the charter names it, the gate says.

    Raises: ConfigError: It is no plan.
    """
    del peer
    return Allowed(decode_chain_plan(request.plan), request.seed)


def _authorise(folder: SiteFolder, model: str) -> Authorise:
    """Returns what believes the charter, and a run's papers where the study's model is what is held."""
    invited = by_invitation(_study(folder), lambda: folder.charter)

    def authorise(peer: str, request: StageRequest) -> Allowed:
        if request.grant and model:
            raise VerificationError(f"pieces of {model} are held here, and none of the study's model")
        return (invited if request.grant else allowed)(peer, request)

    return authorise


def _serve(folder: SiteFolder, held: StageService) -> None:
    """Waits for a signal; a pause ends what is at work."""
    stop = stop_on_signals()
    while not stop.wait(_LOOK):
        if folder.paused:
            held.stop("this site is paused")
    held.stop("this site stopped serving")


def _channel(folder: SiteFolder) -> ChannelSettings:
    channel = folder.settings.channel
    if channel is None:
        raise ConfigError(
            f"{folder.path / folder.settings_file} has no [channel]",
            hint='Add one, with listen = "host:port" and the peers: docs/how-to-site.md.',
        )
    return channel


def _installed(folder: SiteFolder, model: str, blocks: str) -> Installed:
    if model:
        return Installed.of_factory(model, [name.strip() for name in blocks.split(",")] if blocks else [])
    if blocks:
        raise ConfigError("--blocks has no effect without --model")
    return Installed.of_study(_study(folder))


def _study(folder: SiteFolder) -> Study:
    return read_study(folder.study, where=str(folder.path / folder.settings.study))


def _greet(folder: SiteFolder, installed: Installed, address: str, *, device: str, measure: bool) -> None:
    charter = folder.charter
    called = f" as {device}" if device else ""
    _say(f"{folder.holder.uri}{called} under version {charter.version} of the charter")
    _say(f"holds pieces of {installed.name}; chains of the charter: {', '.join(sorted(charter.chains)) or 'none'}")
    if measure:
        _say("lets the other sites measure pieces and the line")
    _say(f"listens on {address}")


def _say(line: str) -> None:
    typer.echo(f"{_now():%Y-%m-%d %H:%M:%S} {line}")


def _now() -> datetime:
    return datetime.now(UTC)
