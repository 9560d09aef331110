"""``collegium serve`` and ``collegium predict``: answer together, and ask."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, cast, get_args

import typer

from clients.assets import load
from clients.channel.credentials import Identity
from clients.channel.limits import Limits
from clients.channel.listener import Listener
from clients.joint.client import Answer, Client, Mode
from clients.joint.model import HOME, only_asset, open_model
from clients.joint.serving import services_of
from clients.joint.terms import Queries
from clients.records import encode_inputs, read_table
from clients.resident import stop_on_signals
from privacy.command_line import seconds
from privacy.errors import ConfigError
from privacy.store.answers import ANSWERS_FILE
from privacy.store.database import kept_open
from privacy.store.log import Record
from privacy.store.run_folder import LEDGER_FILE, read_file
from privacy.store.site_folder import LOG_FILE, SiteFolder
from strategies.chain_plan import parse_chain_plan
from strategies.study import Study, read_study

LOCK = "answers.lock"


def serve(
    folder: Annotated[Path, typer.Argument(help="The site's folder.", show_default=False)],
    listen: Annotated[str, typer.Option(help="HOST:PORT.", show_default="as site.toml says")] = "",
    model: Annotated[str, typer.Option(help="home, or run:NAME for what a closed run left here.")] = HOME,
) -> None:
    """Answer the site's own people, and take part in joint answers, until stopped."""
    os.umask(0o077)
    opened = SiteFolder(folder)
    with opened.locked(LOCK):
        study = _study(opened)
        address = listen or _listen(opened)
        answering = open_model(opened, study, model)
        own = Identity.of_folder(opened, _now)
        log = opened.log()

        def record(entry: Record) -> None:
            log.append([entry], opened.identity)

        services = services_of(opened, own, study, answering, _now)
        files = (opened.path / name for name in (LEDGER_FILE, LOG_FILE, ANSWERS_FILE))
        with kept_open(*files), Listener(address, own, services, limits=Limits(), record=record) as listener:
            _say(f"{opened.holder.uri} under version {opened.charter.version} of the charter, model: {answering.name}")
            _say(_terms(opened))
            _say(f"listens on {address.rpartition(':')[0]}:{listener.port}")
            stop_on_signals().wait()
        _say("stopped")


def predict(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    folder: Annotated[Path, typer.Argument(help="The site's folder.", show_default=False)],
    csv: Annotated[
        Path | None, typer.Option(help="Table with the study's features; labels are not needed.", show_default=False)
    ] = None,
    rows: Annotated[int, typer.Option(help="Instead: so many of the site's own test rows.")] = 0,
    mode: Annotated[str, typer.Option(help=f"{', '.join(get_args(Mode))}.")] = "local",
    purpose: Annotated[str, typer.Option(help="What for.", show_default="the charter's only one")] = "",
    plan: Annotated[
        Path | None, typer.Option(help="Of a chain: plan.json of `collegium plan --inference`.", show_default=False)
    ] = None,
    run: Annotated[
        str,
        typer.Option(
            help="Of a chain: the run that trained its pieces. Of an ensemble: the run that left the model which all "
            "agents serve.",
            show_default="untrained pieces; home models",
        ),
    ] = "",
    deadline: Annotated[float, typer.Option(min=0.1, callback=seconds, help="Seconds.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Ask for the classes of rows: the site's own model, all agents' models together, or a chain of stages.

    In an ensemble every agent of the charter sees the rows; the asker sees one sum of their scores. In a chain the
    holders see what the plan releases to them.
    """
    if mode not in get_args(Mode):
        raise ConfigError(f"{mode!r} is no way to be answered", hint=f"Choose one of: {', '.join(get_args(Mode))}.")
    if plan is not None and mode != "chain":
        raise ConfigError("--plan has no effect without --mode chain")
    if run and mode == "local":
        raise ConfigError("--run has no effect in mode local", hint="The process answers with the model it serves.")
    opened = SiteFolder(folder)
    asked, chain = _rows(opened, _study(opened), csv, rows), None if plan is None else parse_chain_plan(read_file(plan))
    with Client(opened, now=_now) as client:
        answer = client.predict(asked, mode=cast("Mode", mode), deadline=deadline, purpose=purpose, plan=chain, run=run)
    if answer.fell_back:
        typer.echo(f"{mode}: {answer.fell_back}", err=True)
        typer.echo("These are the scores of the site's own model.", err=True)
    typer.echo(json.dumps(_object(answer, mode)) if as_json else "\n".join(_lines(answer)))


def _rows(folder: SiteFolder, study: Study, csv: Path | None, rows: int) -> Queries:
    """Reads the rows to ask about. Raises: ConfigError: None, or both were named."""
    if (csv is None) == (rows < 1):
        raise ConfigError("which rows?", hint="Name a table with --csv FILE, or own test rows with --rows N.")
    if csv is not None:
        return encode_inputs(read_table(csv), study.task, where=str(csv))
    return load(only_asset(folder), study.task).test.x[:rows]


def _study(folder: SiteFolder) -> Study:
    return read_study(folder.study, where=str(folder.path / folder.settings.study))


def _listen(folder: SiteFolder) -> str:
    channel = folder.settings.channel
    if channel is None or not channel.listen:
        raise ConfigError(
            f"{folder.path / folder.settings_file} does not say where to listen",
            hint='Add [channel] with listen = "host:port", or --listen: docs/how-to-joint.md.',
        )
    return channel.listen


def _terms(folder: SiteFolder) -> str:
    terms = folder.charter.inference
    if terms is None:
        return "the charter allows no joint answers: every question will be refused"
    noise = "no noise: all of them or nobody" if terms.noise is None else f"noise {terms.noise.multiplier}"
    return f"answers for {', '.join(terms.purposes)} with {', '.join(terms.agents)} ({noise})"


def _object(answer: Answer, asked: str) -> dict[str, object]:
    return {
        "asked": asked,
        "mode": answer.mode,
        "agents": answer.agents,
        "elapsed_ms": round(answer.elapsed * 1000, 1),
        "epsilon": answer.spent,
        "fell_back": answer.fell_back,
        "classes": [int(row.argmax()) for row in answer.scores],
        "scores": answer.scores.tolist(),
    }


def _lines(answer: Answer) -> list[str]:
    lines = ["row  class  score"]
    lines += [f"{place:>3}  {int(row.argmax()):>5}  {row.max():.3f}" for place, row in enumerate(answer.scores, 1)]
    cost = "" if answer.spent is None else f", epsilon {answer.spent:.3f} spent"
    named = "site" if answer.agents == 1 else "sites"
    return [*lines, f"{answer.mode}: {answer.agents} {named}, {answer.elapsed * 1000:.0f} ms{cost}"]


def _say(line: str) -> None:
    typer.echo(f"{_now():%Y-%m-%d %H:%M:%S} {line}")


def _now() -> datetime:
    return datetime.now(UTC)
