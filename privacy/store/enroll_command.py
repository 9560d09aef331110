"""``collegium site enroll``: keys are made where they are used; a request goes out, never a private key."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from privacy.enrolment.certificates import Holder, Role, default_dns
from privacy.errors import ConfigError
from privacy.keys.signing import keyid
from privacy.store.key_files import read_private
from privacy.store.site_keys import create, read_enrolment, renew


def enroll(
    site: Annotated[str, typer.Option(help="This site's id, as the charter will have it.", show_default=False)],
    federation: Annotated[str, typer.Option(help="The federation's name.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the keys; must be new.", show_default=False)],
    dns: Annotated[str | None, typer.Option(help="Host name for the certificate; made up if not given.")] = None,
    role: Annotated[Role, typer.Option(help="The coordinator's machine is a server.")] = Role.SITE,
    again: Annotated[
        bool, typer.Option("--renew", help="Make a new TLS key in the folder that is there, and ask again.")
    ] = False,
) -> None:
    """Make this site's three keys and the request that enrols them."""
    if again:
        if dns is not None or role is not Role.SITE:
            raise ConfigError("names stay as they were enrolled", hint="Leave --dns and --role out beside --renew.")
        key, bundle = renew(out, site, federation, secrets.token_bytes)
        typer.echo(f"new TLS key: {key}; the old one stays in use until the new certificate is here")
    else:
        holder = Holder(federation, site, default_dns(federation, site) if dns is None else dns, role)
        bundle = create(out, holder, secrets.token_bytes)
        typer.echo(f"three private keys in {out}: they never leave it")
    enrolled = read_enrolment(out, site)
    typer.echo(f"{enrolled.holder.uri} at {enrolled.holder.dns}")
    typer.echo(f"send this to whoever keeps the root: {bundle} ({len(read_private(bundle))} bytes)")
    typer.echo("and read them this by telephone, the identity:")
    typer.echo(f"  {keyid(enrolled.identity)}")
