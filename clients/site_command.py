"""``collegium site start``: the process that a site runs."""

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

import typer

from clients.connection import tls_context
from clients.fleet import Fleet
from clients.preflight import State, check
from clients.real_site import RealSite
from clients.resident import Resident, stop_on_signals
from privacy.enrolment.certificates import Holder, Role
from privacy.errors import ConfigError
from privacy.store.site_folder import SiteFolder, revoked_in
from strategies.messages import CLOSE, COSIGN, HELLO, MASKED, SECAGG, STAGE

ALLOWED = frozenset({HELLO, MASKED, STAGE, SECAGG, CLOSE, COSIGN})
"""Types of messages that a real site looks at; no update ever leaves it in the clear."""

_CAP = 2**28  # bytes of one message: an encoded model of 64 million parameters


def start(folder: Path) -> None:
    """Runs the agent of the site in ``folder`` until it is told to stop.

    Raises: FederationError: Something is wrong that only people can put right.
    """
    os.umask(0o077)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    opened = SiteFolder(folder)
    with opened.locked():
        _clear(opened)
        site = RealSite.opened(opened, _now)
        stop = stop_on_signals()
        _say(f"{opened.holder.uri} under version {opened.charter.version} of the charter")
        Resident(
            open_fleet=lambda: _fleet(opened),
            answer=site.answer,
            allowed=ALLOWED,
            paused=lambda: opened.paused,
            report=_say,
            sent=site.sent,
            tick=site.expire,
        ).run(stop)
        _say("stopped")


def _clear(folder: SiteFolder) -> None:
    """Refuses to start while something is wrong that only people can put right."""
    stops = [finding for finding in check(folder.path, now=_now()) if finding.state is State.FAILED]
    if stops:
        raise ConfigError(f"{stops[0].what}: {stops[0].why}", hint=f"collegium site check {folder.path} says more.")


def _fleet(folder: SiteFolder) -> Fleet:
    """Opens a connection with the newest certificate, to the holder that the charter in force names."""
    tls, charter = folder.tls(_now()), folder.charter
    context = tls_context(
        root=tls.root,
        certificate=tls.certificate,
        key=tls.key,
        server=Holder(charter.federation, charter.server.id, charter.server.dns, Role.SERVER),
        revoked=lambda: revoked_in(folder.charter),
        now=_now,
    )
    return Fleet(folder.settings.server, context, folder.flower, server_name=charter.server.dns, cap=_CAP)


def _say(line: str) -> None:
    typer.echo(f"{_now():%Y-%m-%d %H:%M:%S} {line}")


def _now() -> datetime:
    return datetime.now(UTC)
