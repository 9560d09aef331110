"""``collegium site check``: everything that would make a site refuse or fail later, found before a run.

Each check stands alone, so one broken file hides nothing else. Reading is all that is done; nothing leaves the site
but one request for the coordinator's clock, over the site's own TLS connection.
"""

import http.client
import json
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clients.assets import Loaded, load
from privacy.enrolment.certificates import OVERLAP_DAYS, Role, read_certificate
from privacy.errors import FederationError
from privacy.policy.engine import CedarPolicy
from privacy.store import joining
from privacy.store.application import application_digest
from privacy.store.key_files import FILE_MODE, read_private
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_folder import LOG_FILE, SiteFolder
from privacy.store.site_settings import AssetSettings
from strategies.study import Study, read_study

_FEW_BYTES = 100 * 2**20
_SOME_BYTES = 2**30
_PATIENCE = 5.0  # seconds, for the coordinator to answer
_DRIFT = timedelta(seconds=60)
_DUE = timedelta(days=OVERLAP_DAYS)


class State(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Finding:
    """Outcome of one check, in plain words; no value of a record is in it.

    Attributes:
      what: What was looked at.
      why: What was found.
      hint: What to do about it; may be empty.
    """

    state: State
    what: str
    why: str
    hint: str = ""


_Check = Callable[[SiteFolder, datetime], Iterator[Finding]]


def check(
    path: Path, *, now: datetime, server_clock: Callable[[SiteFolder, datetime], datetime | None] | None = None
) -> list[Finding]:
    """Looks at a site's folder and at the data that it names.

    Args:
      path: The folder.
      now: This machine's clock, with a time zone.
      server_clock: Asks the coordinator what time it is, such as `server_clock`; ``None``: it is not asked.

    Returns: A finding or more for every check, in a fixed order; a site can start if none has failed.
    """
    try:
        folder = SiteFolder(path)
    except FederationError as error:
        return [_failed("folder", error)]
    if folder.holder.role is not Role.SITE:
        return [Finding(State.FAILED, "folder", f"{folder.path} is the coordinator's, not a site's")]
    findings: list[Finding] = []
    checks = dict(_CHECKS)
    if server_clock is not None:
        checks["clock"] = partial(_clock, server_clock)
    for what, one in checks.items():
        try:
            findings += one(folder, now)
        except FederationError as error:
            findings.append(_failed(what, error))
        except OSError as error:
            findings.append(Finding(State.FAILED, what, error.strerror or str(error)))
    return findings


def check_command(
    folder: Annotated[Path, typer.Argument(show_default=False, help="The site's folder.")],
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the coordinator for its clock.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check everything that a run will need: data, certificate, clock, disk, charter, policy, modes.

    Exit code 1 if something failed; warnings do not count.
    """
    findings = check(folder, now=datetime.now(UTC), server_clock=None if offline else server_clock)
    if as_json:
        typer.echo(
            json.dumps({"schema": "collegium/check/v1", "findings": [asdict(one) for one in findings]}, indent=2)
        )
    for one in () if as_json else findings:
        typer.echo(f"{one.state:<8} {one.what}: {one.why}" + (f" {one.hint}" if one.hint else ""))
    raise typer.Exit(1 if any(one.state is State.FAILED for one in findings) else 0)


def server_clock(folder: SiteFolder, now: datetime) -> datetime | None:
    """Returns what time the coordinator says it is, or ``None`` if it cannot be reached.

    It is asked as the agent would ask: TLS 1.3, with the site's certificate, for the host name in the charter.
    """
    paths, server = folder.tls(now), folder.charter.server
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=str(paths.root))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(paths.certificate, paths.key)
    try:
        with (
            socket.create_connection(folder.settings.address, timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=server.dns) as secured,
            closing(http.client.HTTPConnection(server.dns, timeout=_PATIENCE)) as connection,
        ):
            connection.sock = secured
            connection.request("HEAD", "/")
            date = connection.getresponse().getheader("Date", "")
        told = parsedate_to_datetime(date)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return told if told.tzinfo is not None else None


def _failed(what: str, error: FederationError) -> Finding:
    return Finding(State.FAILED, what, str(error), error.hint)


def _keys(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    keyid, bits = folder.identity.keyid, folder.flower.key_size  # reading compares both with what was enrolled
    for key in folder.tls_keys():
        read_private(key)
    for name in (LOG_FILE, LEDGER_FILE):
        mode = (folder.path / name).stat().st_mode & 0o777
        if mode & 0o077:
            yield Finding(
                State.FAILED, "modes", f"{name} is open to other users ({mode:04o})", f"chmod {FILE_MODE:o} it."
            )
    yield Finding(State.OK, "keys", f"{folder.holder.uri}, identity {keyid[:16]}, Flower P-{bits}")


def _certificate(folder: SiteFolder, now: datetime) -> Iterator[Finding]:
    end = read_certificate(folder.tls(now).certificate.read_bytes()).not_valid_after_utc
    due = end - now < _DUE
    hint = "Renew it: collegium site enroll --renew." if due else ""
    yield Finding(State.WARNING if due else State.OK, "certificate", f"in force until {end:%Y-%m-%d %H:%M} UTC", hint)


def _charter(folder: SiteFolder, now: datetime) -> Iterator[Finding]:
    charter = folder.charter
    joining.check_member(folder, charter)
    if not charter.not_before <= now < charter.not_after:
        window = f"{charter.not_before:%Y-%m-%d %H:%M} to {charter.not_after:%Y-%m-%d %H:%M} UTC"
        yield Finding(State.FAILED, "charter", f"version {charter.version} is in force from {window} only")
        return
    late = charter.not_after - now < _DUE
    words = f"version {charter.version}, {charter.digest[:16]}, until {charter.not_after:%Y-%m-%d %H:%M} UTC"
    yield Finding(State.WARNING if late else State.OK, "charter", words, "Agree on the next one." if late else "")


def _application(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    own = application_digest()
    if own == folder.charter.application:
        yield Finding(State.OK, "application", f"the approved one, {own[:16]}")
        return
    why = f"{own[:16]} is installed, {folder.charter.application[:16]} is approved"
    yield Finding(State.FAILED, "application", why, "Install the version that the officers approved.")


def _study(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    study = _read(folder)
    if study.digest not in folder.charter.studies.values():
        why = f"{folder.settings.study} is not one that the charter lists"
        yield Finding(State.FAILED, "study", why, "Put the agreed file in its place.")
    elif folder.holder.id not in study.sites:
        yield Finding(State.FAILED, "study", f"{study.name} does not name {folder.holder.id} among its sites")
    else:
        yield Finding(State.OK, "study", f"{study.name}, {study.digest[:16]}")


def _policy(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    policy = CedarPolicy(folder.policy, "site")
    yield Finding(State.OK, "policy", f"{folder.settings.policy}, {policy.digest[:16]}")


def _books(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    with folder.ledger().reading() as books:
        known = dict(books.assets)
    for asset in joining.assets_of(folder.charter, folder.settings):
        what = f"budget of {asset.name}"
        if asset.name not in known:
            hint = "Declare it: collegium site declare."
            yield Finding(State.FAILED, what, "the ledger does not know the asset", hint)
            continue
        words = "; ".join(joining.budget_words(known[asset.name]))
        changed = known[asset.name].to_json() != asset.to_json()
        hint = "The charter or site.toml says otherwise by now; a budget is fixed when it is declared."
        yield Finding(State.WARNING if changed else State.OK, what, words, hint if changed else "")


def _data(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    study, settings = _read(folder), folder.settings
    for asset in settings.assets.values():
        try:
            loaded = load(asset, study.task)
        except FederationError as error:
            yield _failed(f"data of {asset.name}", error)
            continue
        yield from _data_words(asset, study, loaded)


def _data_words(asset: AssetSettings, study: Study, loaded: Loaded) -> Iterator[Finding]:
    what = f"data of {asset.name}"
    unit = "patients" if study.task.patient else "records"
    words = f"{loaded.train.n_units} {unit} train, {loaded.test.n_units} are kept to test on, all in range"
    left = f"; {loaded.opted_out} rows left out by the opt-out list" if asset.opt_out else ""
    yield Finding(State.OK, what, words + left)
    if loaded.unmatched:
        why = f"{loaded.unmatched} entries of the opt-out list are nobody in the table"
        yield Finding(State.WARNING, what, why, "Look whether they are spelt as in the table.")
    if asset.patient and not study.task.patient and loaded.several:
        why = f"{loaded.several} rows belong to patients with several, and the study protects single records"
        yield Finding(State.WARNING, what, why, "Ask for a study that tells patients apart.")


def _disk(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    free = shutil.disk_usage(folder.path).free
    state = State.FAILED if free < _FEW_BYTES else State.WARNING if free < _SOME_BYTES else State.OK
    yield Finding(state, "disk", f"{free / 2**30:.1f} GiB free", "" if state is State.OK else "Make room.")


def _pause(folder: SiteFolder, _: datetime) -> Iterator[Finding]:
    if folder.paused:
        yield Finding(State.WARNING, "paused", "the emergency stop is on: nothing is answered")


def _clock(
    ask: Callable[[SiteFolder, datetime], datetime | None], folder: SiteFolder, now: datetime
) -> Iterator[Finding]:
    told = ask(folder, now)
    if told is None:
        yield Finding(State.WARNING, "clock", f"not compared: {folder.settings.server} does not answer")
        return
    off = abs(told - now)
    words = f"{off.total_seconds():.0f} s away from the coordinator's"
    hint = "" if off <= _DRIFT else "Find out which of the two is wrong: certificates and windows depend on it."
    yield Finding(State.OK if off <= _DRIFT else State.FAILED, "clock", words, hint)


def _read(folder: SiteFolder) -> Study:
    return read_study(folder.study, where=folder.settings.study)


_CHECKS: dict[str, _Check] = {
    "keys": _keys,
    "charter": _charter,
    "certificate": _certificate,
    "application": _application,
    "study": _study,
    "policy": _policy,
    "budget": _books,
    "data": _data,
    "disk": _disk,
    "paused": _pause,
}
