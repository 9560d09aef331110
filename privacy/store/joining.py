"""What fills a party's folder: joining, the next certificate, the next charter, a new asset.

Everything is checked before anything is written, and ``site.toml`` (or ``server.toml``) is written last: a party
without it has not joined. Nothing is overwritten. A failure takes back what it wrote; a crash leaves files that the
same command, run again, finds to be the same. A ledger that was there before is never replaced: its budgets are spent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from pathlib import Path

from privacy.charter.document import Charter
from privacy.charter.signatures import decode, verify_chain
from privacy.dp.combinations import payable
from privacy.dp.filters import Filter, FilterKind
from privacy.enrolment.certificates import Role, check_leaf, check_root, federation_of, fingerprint
from privacy.enrolment.certificates import read_certificate as to_certificate
from privacy.errors import ConfigError, VerificationError
from privacy.store.budgets import Asset, filter_name
from privacy.store.key_files import write_new
from privacy.store.ledger import Ledger
from privacy.store.log import Log, Record
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_folder import LOG_FILE, ROOT_FILE, SiteFolder, revoked_in
from privacy.store.site_keys import TLS_FILE, read_ec_key
from privacy.store.site_settings import AssetSettings, ServerSettings, SiteSettings
from privacy.store.site_settings import read_server_settings as to_server
from privacy.store.site_settings import read_site_settings as to_site

SITE_CLAIM = "site"
"""The claim of noise that the server adds to a sum."""


@dataclass(frozen=True)
class Papers:
    """What a party is given to join with; all public, none of it trusted yet.

    Attributes:
      certificate: From the root's keeper, for the enrolled TLS key.
      root: The federation's root certificate.
      charters: Every version, the first one first.
      study: The study's file.
      study_digest: What ``strategies.study`` computes from it, hex.
      patients: Whether the study tells patients apart.
      policy: The party's own policy, parsed by whoever calls this.
      settings: ``site.toml`` or ``server.toml``.
    """

    certificate: bytes
    root: bytes
    charters: Sequence[bytes]
    study: bytes
    study_digest: str
    patients: bool
    policy: bytes
    settings: bytes


def join(folder: SiteFolder, papers: Papers, *, root: str, digest: str, now: datetime) -> None:
    """Checks the papers against the folder's own keys and copies them in.

    Args:
      folder: With keys; not joined yet.
      papers: To check.
      root: SHA-256 of the root certificate, hex, that a person was told.
      digest: Digest of the last charter, hex, that a person was told by an officer.
      now: With a time zone.

    Raises:
      ConfigError: A paper is unusable, a file is there with something else in it, or the folder has joined.
      VerificationError: A paper does not hold, or is not for this party.
    """
    if folder.joined:
        raise ConfigError(f"{folder.path} has joined already", hint=f"Edit {folder.settings_file} there.")
    charter = verify_chain([decode(data) for data in papers.charters])
    if charter.digest != digest:
        raise VerificationError(f"the last charter has the digest {charter.digest}, not the one given")
    check_member(folder, charter)
    _check_leaf(folder, papers, charter, root, now)
    if papers.study_digest not in charter.studies.values():
        raise VerificationError("the study is not one that the charter lists")
    settings = _settings(folder, papers.settings)
    assets = assets_of(charter, settings)
    _check_claims(settings, assets, patients=papers.patients)
    files = {
        ROOT_FILE: papers.root,
        Path(TLS_FILE).with_suffix(".crt").name: papers.certificate,
        **{f"charter-{number}.json": data for number, data in enumerate(papers.charters, start=1)},
        settings.study: papers.study,
        settings.policy: papers.policy,
        folder.settings_file: papers.settings,
    }
    if len(files) < len(papers.charters) + 5:
        raise ConfigError(f"{folder.settings_file}: policy and study need names of their own")
    made: list[Path] = []
    try:
        _books(folder, assets, made)
        for name, data in files.items():
            _keep(folder.path / name, data, made)
        folder.log().append([_pinned(charter)], folder.identity)
    except BaseException:
        for path in reversed(made):
            path.unlink(missing_ok=True)
        raise


def install_certificate(folder: SiteFolder, certificate: bytes, *, now: datetime) -> Path:
    """Puts a renewed certificate beside the key that it is for; the newest pair in force is used from then on.

    Returns: Its path.
    Raises: ConfigError: It is there already, or for no key in the folder. VerificationError: It does not hold.
    """
    leaf = to_certificate(certificate)
    revoked = revoked_in(folder.charter)
    check_leaf(leaf, folder.root(), now=now, holder=folder.holder, usage=folder.usage, revoked=revoked)
    for key in folder.tls_keys():
        if read_ec_key(key).public_key() == leaf.public_key():
            path = key.with_suffix(".crt")
            write_new(path, certificate)
            return path
    raise ConfigError("the certificate is for no TLS key in the folder", hint="Ask with collegium site enroll --renew.")


def add_charter(folder: SiteFolder, data: bytes) -> Charter:
    """Pins the next version of the charter: adopted, following the one in force, and still naming this party's keys.

    Raises:
      ConfigError: It is unreadable.
      VerificationError: It does not continue the chain, lacks signatures, or is without this party.
    """
    chain = [*folder.charters, decode(data)]
    charter = verify_chain(chain)
    check_member(folder, charter)
    write_new(folder.path / f"charter-{charter.version}.json", data)
    folder.log().append([_pinned(charter)], folder.identity)
    return charter


def declare_assets(folder: SiteFolder, *, patients: bool) -> tuple[str, ...]:
    """Enters assets that the settings and the charter list and the ledger does not know yet; returns their names.

    An asset that is known keeps the budget that it was declared with, whatever a later charter says.

    Args:
      folder: Has joined.
      patients: Whether the study tells patients apart.

    Raises: ConfigError: The settings ask for what the charter does not allow, or for a budget that nothing can spend.
    """
    ledger, settings = folder.ledger(), folder.common_settings
    with ledger.reading() as books:
        known = set(books.assets)
    new = [asset for asset in assets_of(folder.charter, settings) if asset.name not in known]
    _check_claims(settings, new, patients=patients)
    for asset in new:
        ledger.declare(asset)
    return tuple(asset.name for asset in new)


def check_member(folder: SiteFolder, charter: Charter) -> None:
    """Compares this party's own keys and names with what a charter says of it.

    Raises: VerificationError: It names another party, or other keys.
    """
    own, holder = folder.enrolment, folder.holder
    if charter.federation != holder.federation:
        raise VerificationError(f"the charter is that of {charter.federation}, not of {holder.federation}")
    if holder.role is Role.SITE:
        listed = charter.sites.get(holder.id)
        if listed is None:
            raise VerificationError(f"the charter names no site {holder.id}")
        keys = (listed.identity, listed.flower, listed.uri, listed.dns)
    else:
        server = charter.server
        if server.id != holder.id:
            raise VerificationError(f"the charter names the server {server.id}, not {holder.id}")
        keys = (server.identity, server.flower or own.flower, server.uri, server.dns)
    for what, theirs, ours in zip(
        ("identity key", "Flower key", "certificate's name", "host name"),
        keys,
        (folder.identity.public_key, own.flower, holder.uri, holder.dns),
        strict=True,
    ):
        if theirs != ours:
            raise VerificationError(f"the charter has another {what} for {holder.id} than this folder")


def assets_of(charter: Charter, settings: SiteSettings | ServerSettings) -> tuple[Asset, ...]:
    """Returns the assets of a ledger with budgets at the charter's caps, or below where a site says so.

    At a site, the claims are those of its settings. At the coordinator, every asset of the charter has the one claim
    ``site``, which is what noise that the server adds protects.

    Raises: ConfigError: An asset or a purpose that the charter does not list, or a budget above its cap.
    """
    if isinstance(settings, SiteSettings):
        return tuple(_asset(charter, one) for one in settings.assets.values())
    return tuple(
        Asset(
            name,
            {SITE_CLAIM: Filter.for_budget(FilterKind.GDP, listed.epsilon, listed.delta)},
            _shares(listed.purposes),
        )
        for name, listed in charter.assets.items()
    )


def budget_words(asset: Asset) -> list[str]:
    """Describes an asset's budgets for people, one a claim."""
    return [
        f"epsilon {budget.epsilon:f} at delta {budget.delta:f} per {claim} ({filter_name(budget)})"
        for claim, budget in asset.budgets.items()
        if isinstance(budget, Filter)
    ]


def _asset(charter: Charter, settings: AssetSettings) -> Asset:
    listed = charter.assets.get(settings.name)
    if listed is None:
        raise ConfigError(f"the charter lists no asset {settings.name!r}", hint=f"Only {', '.join(charter.assets)}.")
    odd = sorted(set(settings.purposes) - set(listed.purposes))
    if odd:
        raise ConfigError(f"the charter does not allow {settings.name} to be used for {', '.join(odd)}")
    epsilon = settings.epsilon or listed.epsilon
    if epsilon > listed.epsilon:
        raise ConfigError(f"{settings.name}: epsilon {epsilon} is more than the charter's {listed.epsilon}")
    budgets = {
        claim: Filter.for_budget(_kind(charter, settings, claim), epsilon, listed.delta) for claim in settings.claims
    }
    return Asset(settings.name, budgets, _shares(settings.purposes))


def _check_claims(settings: SiteSettings | ServerSettings, assets: Iterable[Asset], *, patients: bool) -> None:
    """Refuses budgets that no run of the study could be priced under: they could not be corrected later."""
    if isinstance(settings, ServerSettings):
        return
    unit, other = ("patient", "record") if patients else ("record", "patient")
    together = payable(patients=patients)
    for asset in assets:
        for claim in asset.budgets:
            if claim.startswith(other):
                raise ConfigError(
                    f"asset {asset.name}: the study protects a {unit}, and claims has {claim!r}",
                    hint=f"Write {claim.replace(other, unit)!r}.",
                )
        if set(asset.budgets) not in map(set, together):
            raise ConfigError(
                f"asset {asset.name}: no run is priced under {' and '.join(asset.budgets)}",
                hint=f"Runs are priced under {', or '.join(' with '.join(claims) for claims in together)}.",
            )


def _kind(charter: Charter, settings: AssetSettings, claim: str) -> FilterKind:
    """Chooses the sum behind a budget, which is fixed for ever.

    The Gaussian sum is the tighter one and admits nothing but Gaussian noise on all records. So it is taken where the
    charter lets no strategy have smaller batches; else, and for shares of noise in the sum, the Rényi sum, which
    admits everything. Its order is the one at which most full batches with Gaussian noise fit. That stands for the
    rest: little noise in a small batch aside, the divergences of sampled batches and of Skellam noise grow with the
    order as that one does.
    """
    if claim.endswith("-distributed"):
        return FilterKind.RENYI
    ranges = [parameters.get("batch") for parameters in charter.strategies.values()]
    full = all(ends is not None and ends.high == 0 for ends in ranges)
    return settings.filter or (FilterKind.GDP if full else FilterKind.RENYI)


def _shares(purposes: Iterable[str]) -> dict[str, Decimal]:
    return dict.fromkeys(purposes, Decimal(1))


def _check_leaf(folder: SiteFolder, papers: Papers, charter: Charter, told: str, now: datetime) -> None:
    root, leaf = to_certificate(papers.root), to_certificate(papers.certificate)
    if fingerprint(root) != told:
        raise VerificationError(f"the root has the fingerprint {fingerprint(root)}, not the one given")
    check_root(root, now=now)
    if federation_of(root) != folder.holder.federation:
        raise VerificationError(f"the root is that of {federation_of(root)}, not of {folder.holder.federation}")
    revoked = revoked_in(charter)
    check_leaf(leaf, root, now=now, holder=folder.holder, usage=folder.usage, revoked=revoked)
    if read_ec_key(folder.path / TLS_FILE).public_key() != leaf.public_key():
        raise VerificationError("the certificate is not for the TLS key in the folder")


def _settings(folder: SiteFolder, data: bytes) -> SiteSettings | ServerSettings:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise ConfigError(f"{folder.settings_file} is not text in UTF-8") from None
    return to_site(text, folder.path) if folder.holder.role is Role.SITE else to_server(text)


def _books(folder: SiteFolder, assets: Iterable[Asset], made: list[Path]) -> None:
    """Makes log and ledger where they are not there, and declares the assets; notes what a failure must take back."""
    for name in (LOG_FILE, LEDGER_FILE):
        path = folder.path / name
        if path.exists():
            continue
        made += [path, *(path.with_name(name + end) for end in ("-wal", "-shm"))]
        path.touch(mode=0o600)
        if name == LOG_FILE:
            Log.create(path, folder.origin, folder.identity)
        else:
            Ledger.create(path)
    ledger = folder.ledger()
    for asset in assets:
        ledger.declare(asset)


def _keep(path: Path, data: bytes, made: list[Path]) -> None:
    if path.exists() and path.read_bytes() == data:
        return
    write_new(path, data)
    made.append(path)


def _pinned(charter: Charter) -> Record:
    return Record("charter", {"version": charter.version, "digest": charter.digest})
