"""What a charter says: who takes part, what may run, under which protection, on which data, until when.

A charter is canonical JSON (RFC 8785) in the format ``charter-v1``; fractions are decimal strings. Everything in it is
public. A charter that breaks a rule cannot be built, and what it does not list is not allowed. The limits in capitals
are what no charter can lift.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from types import MappingProxyType
from typing import Any

from privacy.audit import canonical, schemas
from privacy.audit.envelope import decode_base64
from privacy.charter.inference import Inference, read_inference
from privacy.charter.keys import check_flower_key, check_signing_key
from privacy.enrolment.certificates import Holder, Role
from privacy.errors import ConfigError
from privacy.keys.signing import keyid
from privacy.secagg.context import MIN_SITES, Thresholds
from privacy.secagg.encoding import in_order

SCHEMA = "collegium/charter/v1"
MAX_BYTES = 2**20
MIN_SIGNATURES = 2
MIN_OFFICERS = 3
MIN_THRESHOLD = 2
MAX_EPSILON = Decimal(100)
MAX_DELTA = Decimal("0.01")
MAX_CLIP = Decimal(1000)
MIN_NOISE = Decimal("0.1")
SETTINGS = ("record", "site", "distributed")


def refuse_unless(holds: bool, message: str, hint: str = "") -> None:
    """Raises: ConfigError: The condition does not hold."""
    if not holds:
        raise ConfigError(message, hint=hint)


@dataclass(frozen=True)
class Site:
    """One organisation, by the keys it is known by.

    Attributes:
      id: Site id.
      identity: Raw Ed25519 key, 32 bytes, under which it takes part in secure aggregation.
      flower: Flower's node key as its header spells it, or None while it has not enrolled.
      dns: Name in its TLS certificate, or None.
      uri: Name of the certificate's holder, ``spiffe://<federation>/site/<id>``, or None.
    """

    id: str
    identity: bytes
    flower: str | None
    dns: str | None
    uri: str | None


@dataclass(frozen=True)
class Server:
    """The coordinator's machine: it moves messages and adds masked vectors; it signs no charter and is no site.

    Attributes:
      id: Not that of a site.
      identity: Raw Ed25519 key, 32 bytes, under which it signs its log and its reports.
      dns: Name in its TLS certificate, which every site pins.
      uri: Name of the certificate's holder, ``spiffe://<federation>/server/<id>``.
      flower: Flower's node key as its header spells it, or None: a server needs none.
    """

    id: str
    identity: bytes
    dns: str
    uri: str
    flower: str | None


@dataclass(frozen=True)
class Officer:
    """A person who signs charters for a site; ``key`` is a raw Ed25519 public key, 32 bytes."""

    name: str
    site: str
    key: bytes

    @property
    def keyid(self) -> str:
        """SHA-256 of the key, hex."""
        return keyid(self.key)


@dataclass(frozen=True)
class Range:
    """What a parameter may be, both ends included."""

    low: Decimal
    high: Decimal


@dataclass(frozen=True)
class Asset:
    """Data that may be used: for which purposes, and the most that may ever be spent on them at one site."""

    purposes: tuple[str, ...]
    epsilon: Decimal
    delta: Decimal


@dataclass(frozen=True)
class Floors:
    """Least numbers of secure aggregation: sites in a cohort, survivors, shares that open, holders of a region."""

    cohort: int
    survivors: int
    threshold: int
    cover: int

    def raised(self, limits: Thresholds) -> Thresholds:
        """Returns thresholds that are nowhere below these floors; the caller checks that so many sites are left."""
        t = max(limits.t, self.threshold)
        survivors = max(limits.min_survivors, self.survivors, t)
        return replace(limits, t=t, min_survivors=survivors, min_cover=max(limits.min_cover, self.cover))


@dataclass(frozen=True)
class Allowance:
    """The weakest form of one privacy setting: largest epsilon and delta of a run, largest clip, least noise / clip."""

    epsilon: Decimal
    delta: Decimal
    clip: Decimal
    noise: Decimal


@dataclass(frozen=True)
class Charter:
    """One version of a federation's charter; all fields are public.

    Attributes:
      federation: Its name, by the rules of site ids.
      version: Counts from 1.
      previous: Digest of the version before, 64 hex digits; None in version 1.
      signatures: k, how many of the officers must sign.
      server: The coordinator's machine.
      sites: By id, in the order of ids.
      officers: In the order of names.
      revoked: Serial numbers of certificates that count no more, in the order of their text: hex, lower case, no
        leading zeros (``format(serial, "x")``).
      application: SHA-256 of the installed application, hex.
      studies: What may be learnt (features, model, settings), by a name for people: SHA-256 of the study, hex.
      strategies: By name, the range of every parameter it takes.
      assets: By name.
      floors: Of secure aggregation, which is always required.
      privacy: By setting; a run may combine several.
      unsafe_without_dp: Whether a run may do without any setting.
      not_before: First moment at which something may run.
      not_after: First moment at which nothing may run any more.
      chains: Plans by which stages may work together over the channel, by a name for people: SHA-256 of the plan, hex.
        Empty, which is how charters begin: none.
      inference: The terms of joint answers; ``None``: nobody is answered.
    """

    federation: str
    version: int
    previous: str | None
    signatures: int
    server: Server
    sites: Mapping[str, Site]
    officers: tuple[Officer, ...]
    revoked: tuple[str, ...]
    application: str
    studies: Mapping[str, str]
    strategies: Mapping[str, Mapping[str, Range]]
    assets: Mapping[str, Asset]
    floors: Floors
    privacy: Mapping[str, Allowance]
    unsafe_without_dp: bool
    not_before: datetime
    not_after: datetime
    body: Mapping[str, Any]
    chains: Mapping[str, str] = field(default_factory=dict)
    inference: Inference | None = None

    def __post_init__(self) -> None:
        _check_holders(self)
        _check_officers(self)
        refuse_unless(in_order(self.revoked), "the revoked serials are not in order, or one is listed twice")
        _check_floors(self.floors, len(self.sites))
        _check_weakness(self)
        _check_ranges(self)
        if self.inference is not None:
            self.inference.check(self.sites)

    @cached_property
    def payload(self) -> bytes:
        """The canonical bytes: what the officers sign."""
        return canonical.dumps(dict(self.body))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of ``payload``, hex: what the next version, a site's pin and a proposal name this charter by."""
        return hashlib.sha256(self.payload).hexdigest()


def parse(data: bytes) -> Charter:
    """Reads a charter from a stranger; whose signatures it carries is another question.

    Raises: ConfigError: Not canonical, not in the format, or weaker than any charter may be.
    """
    refuse_unless(len(data) <= MAX_BYTES, "the charter is larger than 1 MiB")
    return from_body(canonical.loads(data, what="the charter"))


def from_body(body: Any) -> Charter:
    """Reads a charter that ``canonical.loads`` decoded. Raises: ConfigError: As ``parse``."""
    schemas.check("charter-v1", body)
    sites = [Site(**_with_key(site, "identity")) for site in body["sites"]]
    refuse_unless(in_order(site.id for site in sites), "the sites are not in the order of ids, or one is listed twice")
    window = body["window"]
    return Charter(
        **{name: body[name] for name in ("federation", "version", "previous", "application", "unsafe_without_dp")},
        signatures=body["rule"]["signatures"],
        server=Server(**_with_key(body["server"], "identity")),
        sites=MappingProxyType({site.id: site for site in sites}),
        officers=tuple(Officer(**_with_key(entry, "key")) for entry in body["officers"]),
        revoked=tuple(body["revoked"]),
        studies=MappingProxyType(dict(body["studies"])),
        strategies=MappingProxyType({
            name: MappingProxyType({key: Range(**_decimals(ends)) for key, ends in ranges.items()})
            for name, ranges in body["strategies"].items()
        }),
        assets=MappingProxyType({
            name: Asset(tuple(asset["purposes"]), Decimal(asset["epsilon"]), Decimal(asset["delta"]))
            for name, asset in body["assets"].items()
        }),
        floors=Floors(**body["floors"]),
        privacy=MappingProxyType({name: Allowance(**_decimals(terms)) for name, terms in body["privacy"].items()}),
        not_before=_moment(window["not_before"]),
        not_after=_moment(window["not_after"]),
        body=body,
        chains=MappingProxyType(dict(body.get("chains", {}))),
        inference=read_inference(body["inference"]) if "inference" in body else None,
    )  # fmt: skip


def _with_key(entry: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**entry, name: decode_base64(entry[name])}


def _decimals(terms: Mapping[str, str]) -> dict[str, Decimal]:
    return {name: Decimal(text) for name, text in terms.items()}


def _moment(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise ConfigError(f"{text!r} is no moment in UTC", hint="Write it as 2027-01-31T18:00:00Z.") from None


def _different(items: Iterable[object]) -> bool:
    listed = list(items)
    return len(set(listed)) == len(listed)


def _check_holders(charter: Charter) -> None:
    """Every key is one that somebody holds and stands for one party, and certificates carry nobody else's name."""
    refuse_unless((charter.version == 1) == (charter.previous is None), "version 1, and no other, has no previous one")
    refuse_unless(charter.not_before < charter.not_after, "the charter ends before it begins")
    refuse_unless(charter.server.id not in charter.sites, f"{charter.server.id} is the server and a site")
    holders: list[Server | Site] = [charter.server, *charter.sites.values()]
    keys = [*((one.id, one.identity) for one in holders), *((one.name, one.key) for one in charter.officers)]
    for whose, key in keys:
        check_signing_key(key, whose)
    one_key = "One key is one party; else it counts twice."
    refuse_unless(
        _different(key for _, key in keys),
        "a key is listed twice, among the identity keys of sites and server and the officers' keys",
        one_key,
    )
    for what in ("flower", "dns"):
        given = [value for one in holders if (value := getattr(one, what)) is not None]
        refuse_unless(_different(given), f"two of server and sites have the same {what}", one_key)
    for one in holders:
        role = Role.SERVER if one is charter.server else Role.SITE
        named = Holder(charter.federation, one.id, one.dns or "none.invalid", role)  # checks the names
        refuse_unless(one.uri in {None, named.uri}, f"the certificate of {one.id} must be called {named.uri}")
        if one.flower is not None:
            check_flower_key(one.flower, one.id)


def _check_officers(charter: Charter) -> None:
    """The rule k of m: two officers so that one stolen key signs nothing, a third so that one lost key stops nothing.

    More than half, so that no two groups can sign two different next versions without one officer in both.
    """
    officers, k = charter.officers, charter.signatures
    m = len(officers)
    refuse_unless(in_order(officer.name for officer in officers), "the officers are not in the order of names")
    shown = all(officer.name.isprintable() for officer in officers)
    refuse_unless(shown, "an officer's name has a character that nobody sees", "Two names would look the same.")
    refuse_unless(m >= MIN_OFFICERS, f"{m} officers are too few", f"Name at least {MIN_OFFICERS}.")
    refuse_unless(
        k >= MIN_SIGNATURES and m < 2 * k <= 2 * m,
        f"{k} of {m} signatures is no rule that protects",
        "At least two, more than half of the officers, and no more than there are.",
    )
    held = [officer.site for officer in officers]
    refuse_unless(set(held) <= set(charter.sites), "an officer belongs to no site of the charter")
    for site in charter.sites:
        refuse_unless(site in held, f"site {site} has no officer", "Every site has a pen.")
        refuse_unless(
            held.count(site) < k,
            f"the officers of {site} could change the charter alone",
            "Name fewer there, or ask for more signatures.",
        )


def _check_floors(floors: Floors, sites: int) -> None:
    hint = f"Below {MIN_SITES} sites each would learn another's update from the sum; no charter can allow that."
    refuse_unless(floors.cohort >= MIN_SITES, f"a cohort of {floors.cohort} is too small", hint)
    refuse_unless(floors.survivors >= MIN_SITES, f"{floors.survivors} survivors are too few", hint)
    refuse_unless(floors.cover >= MIN_SITES, f"{floors.cover} holders of a region are too few", hint)
    refuse_unless(floors.threshold >= MIN_THRESHOLD, f"a threshold of {floors.threshold} is too small")
    refuse_unless(
        floors.cohort <= sites and max(floors.survivors, floors.threshold, floors.cover) <= sites,
        f"the floors ask for more than the {sites} sites there are",
        "Nothing could ever run.",
    )


def _check_weakness(charter: Charter) -> None:
    """Refuses differential privacy in name only, such as noise 0 or clip 1e6."""
    limit, little = "No charter can allow that.", f"less than {MIN_NOISE}"
    caps = [
        *((f"privacy {name}", allowed.epsilon, allowed.delta) for name, allowed in charter.privacy.items()),
        *((f"asset {name}", asset.epsilon, asset.delta) for name, asset in charter.assets.items()),
    ]
    noise = charter.inference.noise if charter.inference else None
    if noise is not None:
        caps.append(("inference", noise.epsilon, noise.delta))
        refuse_unless(noise.multiplier >= MIN_NOISE, f"inference: noise {noise.multiplier} is {little}", limit)
    for where, epsilon, delta in caps:
        refuse_unless(0 < epsilon <= MAX_EPSILON, f"{where}: epsilon {epsilon} is not above 0 and at most 100", limit)
        refuse_unless(0 < delta <= MAX_DELTA, f"{where}: delta {delta} is not above 0 and at most 0.01", limit)
    for name, allowed in charter.privacy.items():
        refuse_unless(0 < allowed.clip <= MAX_CLIP, f"privacy {name}: clip {allowed.clip} is not within 0..1000", limit)
        refuse_unless(allowed.noise >= MIN_NOISE, f"privacy {name}: noise {allowed.noise} is {little}", limit)
    refuse_unless(
        bool(charter.privacy) or charter.unsafe_without_dp,
        "the charter allows no privacy setting, so nothing could ever run",
        f"List one of {', '.join(SETTINGS)}, or say unsafe_without_dp = true.",
    )


def _check_ranges(charter: Charter) -> None:
    for name, ranges in charter.strategies.items():
        for parameter, ends in ranges.items():
            refuse_unless(
                ends.low <= ends.high,
                f"strategy {name}: {parameter} runs from {ends.low} to {ends.high}",
                "low must not be greater than high.",
            )
