"""``collegium site join``, ``install-certificate``, ``charter``, ``declare``: what a person does after enrolling.

The same commands serve a site and the coordinator. Two numbers come from people over another channel: the root's
fingerprint and the charter's digest.
"""

import importlib
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from privacy.charter.signatures import MAX_FILE_BYTES
from privacy.enrolment.certificates import MAX_CERTIFICATE_BYTES
from privacy.errors import ConfigError
from privacy.store import joining
from privacy.store.joining import Papers
from privacy.store.run_folder import read_file, read_text
from privacy.store.site_folder import SiteFolder

_LARGEST_TEXT = 2**20
_DIGEST = re.compile(r"[0-9a-f]{64}")

_Folder = Annotated[Path, typer.Argument(show_default=False, help="The folder that `collegium site enroll` made.")]


def join(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    folder: _Folder,
    certificate: Annotated[Path, typer.Option(help="Your certificate, from the root's keeper.", show_default=False)],
    root: Annotated[Path, typer.Option(help="The federation's root certificate.", show_default=False)],
    fingerprint: Annotated[str, typer.Option(help="The root's SHA-256, as you were told.", show_default=False)],
    charter: Annotated[list[Path], typer.Option(help="Every version, the first one first.", show_default=False)],
    digest: Annotated[str, typer.Option(help="The last version's digest, as an officer told you.", show_default=False)],
    study: Annotated[Path, typer.Option(help="What is to be learnt.", show_default=False)],
    policy: Annotated[Path, typer.Option(help="Your own policy, in Cedar.", show_default=False)],
    settings: Annotated[Path, typer.Option(help="Your site.toml, or the coordinator's server.toml.")],
) -> None:
    """Join a federation: check everything against the keys in FOLDER, and copy it in."""
    for option, value in (("--fingerprint", fingerprint), ("--digest", digest)):
        if not _DIGEST.fullmatch(value):
            raise ConfigError(f"{option} is not a SHA-256 digest", hint="64 digits, 0-9 and a-f.")
    opened, text, own = (
        SiteFolder(folder),
        read_text(study, limit=_LARGEST_TEXT),
        read_text(policy, limit=_LARGEST_TEXT),
    )
    learnt = read_study(text, where=str(study))
    papers = Papers(
        certificate=read_file(certificate, limit=MAX_CERTIFICATE_BYTES),
        root=read_file(root, limit=MAX_CERTIFICATE_BYTES),
        charters=[read_file(path, limit=MAX_FILE_BYTES) for path in charter],
        study=text.encode(),
        study_digest=learnt.digest,
        patients=bool(learnt.task.patient),
        policy=own.encode(),
        settings=read_file(settings, limit=_LARGEST_TEXT),
    )
    _check_policy(own, opened)
    joining.join(opened, papers, root=fingerprint, digest=digest, now=_now())
    holder, pinned = opened.holder, opened.charter
    typer.echo(f"{holder.uri} has joined {holder.federation} under version {pinned.version} of its charter")
    typer.echo(f"log of {opened.origin}: {opened.log().key.to_vkey()}")
    with opened.ledger().reading() as books:
        for asset in books.assets.values():
            typer.echo(f"budget of {asset.name}, fixed for ever: {', '.join(joining.budget_words(asset))}")


def install_certificate(folder: _Folder, certificate: Annotated[Path, typer.Argument(show_default=False)]) -> None:
    """Put a renewed CERTIFICATE beside the key in FOLDER that it is for."""
    data = read_file(certificate, limit=MAX_CERTIFICATE_BYTES)
    opened, now = SiteFolder(folder), _now()
    typer.echo(f"installed: {joining.install_certificate(opened, data, now=now)}")
    typer.echo(f"in use from now on: {opened.tls(now).certificate}")


def charter(folder: _Folder, add: Annotated[Path, typer.Argument(metavar="ADD", show_default=False)]) -> None:
    """Pin the next version of the charter, ADD, if it continues the one in FOLDER and enough officers signed it."""
    opened = SiteFolder(folder)
    pinned = joining.add_charter(opened, read_file(add, limit=MAX_FILE_BYTES))
    typer.echo(f"version {pinned.version} is in force here, digest {pinned.digest}")
    settings = opened.common_settings
    if read_study(opened.study, where=settings.study).digest not in pinned.studies.values():
        typer.echo(f"{settings.study} is not a study that it lists: put the new one in its place.", err=True)


def declare(folder: _Folder) -> None:
    """Enter assets that are new in site.toml into the ledger, with the budget of the charter."""
    opened = SiteFolder(folder)
    learnt = read_study(opened.study, where=opened.common_settings.study)
    names = joining.declare_assets(opened, patients=bool(learnt.task.patient))
    typer.echo(f"declared: {', '.join(names)}" if names else "nothing is new")


def read_study(text: str, *, where: str) -> Any:
    """Returns the ``strategies.study.Study`` in a text, which the packages of a site bring.

    Raises: ConfigError: It is none, or the packages are not installed.
    """
    try:
        module = importlib.import_module("strategies.study")
    except ModuleNotFoundError as error:
        hint = "In the source's folder: pip install -c constraints.txt '.[site]'."
        raise ConfigError(f"{error.name} is not installed", hint=hint) from error
    return module.read_study(text, where=where)


def _check_policy(text: str, folder: SiteFolder) -> None:
    from privacy.policy.engine import CedarPolicy  # noqa: PLC0415 - brings Cedar, which only a policy needs

    CedarPolicy(text, "site" if folder.settings_file == "site.toml" else "server")


def _now() -> datetime:
    return datetime.now(UTC)
