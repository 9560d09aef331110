"""Enrolment from nothing: keys at the site, a request out, a leaf back; every refusal leaves things as they were."""

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from privacy import command
from privacy.audit import canonical
from privacy.audit.envelope import pae
from privacy.enrolment.bundle import Enrolment, flower_key, new_bundle, read_bundle
from privacy.enrolment.certificates import Holder, Role, Usage, check_leaf, default_dns, fingerprint, read_certificate
from privacy.errors import ConfigError, FederationError, VerificationError
from privacy.keys.signing import SigningKey, keyid
from privacy.store import ca_command, site_keys
from privacy.store.key_files import read_private, write_new
from tests.privacy.enrolment.issuing import holder, key

BERLIN = holder("berlin")
IDENTITY, FLOWER = SigningKey(bytes(32)), ec.derive_private_key(7, ec.SECP384R1())
BUNDLE = new_bundle(BERLIN, identity=IDENTITY, tls=key(10), flower=FLOWER)


class Desk:
    """Runs commands in a folder and returns the exit code and what was said."""

    def __init__(self, folder: Path, said: pytest.CaptureFixture[str]) -> None:
        self.folder, self.said = folder, said

    def __call__(self, *words: object) -> tuple[int, str]:
        code = command._outcome(list(map(str, words)))
        shown = self.said.readouterr()
        assert "Traceback" not in shown.err
        return code, shown.out + shown.err

    def enroll(self, site: str = "berlin", *more: object, federation: str = "hearts") -> tuple[int, str]:
        out = self.folder / site
        return self("site", "enroll", "--site", site, "--federation", federation, "--out", out, *more)

    def identity(self, site: str = "berlin") -> str:
        return site_keys.read_identity(self.folder / site).keyid

    def issue(self, site: str = "berlin", *more: object, identity: str = "", bundle: str = "") -> tuple[int, str]:
        path = self.folder / site / (bundle or f"enrol-{site}.json")
        who = ("--site", site, "--identity", identity or self.identity(site))
        return self("ca", "issue", self.folder / "ca", path, *who, *more)

    def renew(self, site: str = "berlin", number: int = 2, *more: object) -> tuple[int, str]:
        return self("ca", "renew", self.folder / "ca", self.folder / site / f"enrol-{site}-{number}.json", *more)

    def issued(self) -> list[Path]:
        return sorted((self.folder / "ca" / "issued").glob("*.pem"))

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    made = Desk(tmp_path, capsys)
    assert made("ca", "init", tmp_path / "ca", "--federation", "hearts")[0] == 0
    assert made.enroll()[0] == 0
    return made


def unchanged(desk: Desk, act: Callable[[], tuple[int, str]], code: int, reason: str) -> None:
    before = desk.files()
    ended, said = act()
    assert (ended, reason in said) == (code, True), said
    assert len(said.splitlines()) <= 2
    assert desk.files() == before


def clock(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    now = ca_command._now() + timedelta(days=days)
    monkeypatch.setattr(ca_command, "_now", lambda: now)


def test_from_nothing_to_a_leaf_that_holds(desk: Desk) -> None:
    code, said = desk.issue()
    assert code == 0
    (path,) = desk.issued()
    leaf, root = read_certificate(path.read_bytes()), read_certificate((desk.folder / "ca/root.pem").read_bytes())
    check_leaf(leaf, root, now=ca_command._now(), holder=BERLIN, usage=Usage.CLIENT)
    tls = site_keys.read_ec_key(desk.folder / "berlin/tls.key")
    assert leaf.public_key() == tls.public_key()
    assert fingerprint(leaf) in said
    for file in desk.folder.rglob("*"):
        assert file.stat().st_mode & 0o777 == (0o700 if file.is_dir() else 0o600)


def test_private_keys_are_in_their_three_files_only(desk: Desk) -> None:
    desk.issue()
    files = desk.files()
    kept = {str(desk.folder / "berlin" / name) for name in ("identity.key", "tls.key", "flower.key")}
    held = {path for path, data in files.items() if b"PRIVATE KEY" in data}
    assert held == kept | {str(desk.folder / "ca/root.key")}
    secrets = [
        site_keys.read_ec_key(desk.folder / "berlin/tls.key").private_numbers().private_value.to_bytes(32, "big")
    ]
    flower = load_ssh_private_key((desk.folder / "berlin/flower.key").read_bytes(), None)
    assert isinstance(flower, ec.EllipticCurvePrivateKey)
    secrets.append(flower.private_numbers().private_value.to_bytes(48, "big"))
    out = canonical.loads((desk.folder / "berlin/enrol-berlin.json").read_bytes()[:-1], what="it")
    sent = b"".join(
        base64.b64decode(out[name]) for name in out if name not in {"schema", "federation", "role", "id", "dns"}
    )
    assert not any(secret in sent for secret in secrets)


def test_the_flower_key_is_one_that_flower_reads(desk: Desk) -> None:
    flower = load_ssh_private_key((desk.folder / "berlin/flower.key").read_bytes(), None)
    assert isinstance(flower, ec.EllipticCurvePrivateKey)
    assert flower.curve.name == "secp384r1"
    enrolment = site_keys.read_enrolment(desk.folder / "berlin", "berlin")
    asymmetric = pytest.importorskip("flwr.supercore.primitives.asymmetric")
    header = base64.b64encode(asymmetric.public_key_to_bytes(flower.public_key())).decode()
    assert enrolment.flower == header
    try:
        shown = subprocess.run(
            ["ssh-keygen", "-l", "-f", desk.folder / "berlin/flower.key"], capture_output=True, text=True, check=True
        ).stdout
    except FileNotFoundError:
        return
    assert shown.startswith("384 SHA256:")
    assert "(ECDSA)" in shown


def test_what_is_not_agreed_is_not_issued(desk: Desk) -> None:
    desk.enroll("paris", "--dns", "paris.example.org")
    berlin = desk.identity()
    unchanged(desk, lambda: desk.issue(identity="0" * 64), 1, "another identity than the one given")
    unchanged(desk, lambda: desk.issue(identity="0" * 63), 2, "not a key id")
    unchanged(
        desk, lambda: desk.issue("berlin", "--dns", "b.example.org"), 1, "not for spiffe://hearts/site/berlin at b."
    )
    unchanged(desk, lambda: desk.issue("berlin", "--role", "server"), 1, "not for spiffe://hearts/server/berlin")
    unchanged(desk, lambda: desk.issue("paris"), 1, "at paris.example.org, not for")
    folder = desk.folder / "berlin"
    other = ("--site", "paris", "--identity", berlin)
    unchanged(desk, lambda: desk("ca", "issue", desk.folder / "ca", folder / "enrol-berlin.json", *other), 1, "not for")
    unchanged(desk, lambda: desk.issue(bundle="absent"), 2, "cannot be read")
    unchanged(desk, lambda: desk.issue("berlin", "--days", "0"), 2, "--days")
    assert desk.issue("paris", "--dns", "paris.example.org")[0] == 0


def test_another_federation_is_refused(desk: Desk) -> None:
    desk.enroll("rome", federation="lungs")
    unchanged(desk, lambda: desk.issue("rome"), 1, "not for spiffe://hearts/site/rome")


def test_a_second_certificate_needs_a_reason(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.issue()
    unchanged(desk, desk.issue, 1, "berlin has a certificate until")
    unchanged(desk, lambda: desk.issue("berlin", "--replace"), 1, "TLS key was certified before")
    stolen = desk.folder / "stolen"
    (desk.folder / "berlin").rename(stolen)
    clock(monkeypatch, 0.1)
    desk.enroll()
    unchanged(desk, desk.issue, 1, "has a certificate")
    code, said = desk.issue("berlin", "--replace", "--days", "30")
    assert code == 0
    assert "To be revoked: until" in said
    # Whoever stole the old keys cannot renew with them, though the old certificate would last longer.
    words = ("--site", "berlin", "--federation", "hearts", "--out", stolen, "--renew")
    desk("site", "enroll", *words)
    theirs = stolen / "enrol-berlin-2.json"
    unchanged(desk, lambda: desk("ca", "renew", desk.folder / "ca", theirs), 1, "other names or keys")


def test_renewal_overlaps(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.issue()
    (old,) = desk.issued()
    desk.enroll("berlin", "--renew")
    clock(monkeypatch, 80)
    assert "renew now" in desk("ca", "show", desk.folder / "ca")[1]
    code, said = desk.renew()
    assert code == 0
    assert "The old one stays good: until" in said
    (new,) = set(desk.issued()) - {old}
    root = read_certificate((desk.folder / "ca/root.pem").read_bytes())
    leaves = [read_certificate(path.read_bytes()) for path in (old, new)]
    now = ca_command._now()
    for leaf in leaves:
        check_leaf(leaf, root, now=now, holder=BERLIN, usage=Usage.CLIENT)
    keys = [site_keys.read_ec_key(desk.folder / "berlin" / name) for name in ("tls.key", "tls-2.key")]
    assert [leaf.public_key() for leaf in leaves] == [one.public_key() for one in keys]
    assert keys[0].private_numbers() != keys[1].private_numbers()
    later = now + timedelta(days=11)
    with pytest.raises(VerificationError, match="expired"):
        check_leaf(leaves[0], root, now=later, holder=BERLIN, usage=Usage.CLIENT)
    check_leaf(leaves[1], root, now=later, holder=BERLIN, usage=Usage.CLIENT)
    shown = desk("ca", "show", desk.folder / "ca")[1].splitlines()
    assert [line.count("berlin.hearts.internal") for line in shown] == [0, 1, 1]
    assert desk.enroll("berlin", "--renew")[0] == 0
    assert (desk.folder / "berlin/tls-3.key").exists()


def test_renewal_is_for_who_was_enrolled(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.enroll("berlin", "--renew")
    unchanged(desk, desk.renew, 1, "no certificate in force")
    desk.issue()
    for name, holders, identity, flower in (
        ("3", BERLIN, SigningKey(b"x" * 32), None),
        ("4", BERLIN, None, FLOWER),
        ("5", Holder("hearts", "berlin", "b.example.org"), None, None),
    ):
        folder = desk.folder / "berlin"
        forged = new_bundle(
            holders,
            identity=identity or site_keys.read_identity(folder),
            tls=key(30),
            flower=flower or site_keys.read_ec_key(folder / "flower.key", ec.SECP384R1()),
        )
        (folder / f"enrol-berlin-{name}.json").write_bytes(forged)
        unchanged(desk, lambda number=int(name): desk.renew("berlin", number), 1, "other names or keys")  # type: ignore[misc]
    clock(monkeypatch, 91)
    assert "expired" in desk("ca", "show", desk.folder / "ca")[1]
    unchanged(desk, desk.renew, 1, "no certificate in force")


@pytest.mark.parametrize("shared", ["identity", "flower", "dns", "tls"])
def test_nothing_stands_for_two_holders(desk: Desk, shared: str) -> None:
    desk.issue()
    folder = desk.folder / "berlin"
    desk.enroll("rome")
    rome = desk.folder / "rome"
    wanted = [folder if name == shared else rome for name in ("identity", "flower", "tls")]
    dns = default_dns("hearts", "berlin" if shared == "dns" else "rome")
    forged = new_bundle(
        Holder("hearts", "rome", dns),
        identity=(identity := site_keys.read_identity(wanted[0])),
        flower=site_keys.read_ec_key(wanted[1] / "flower.key", ec.SECP384R1()),
        tls=site_keys.read_ec_key(wanted[2] / "tls.key"),
    )
    (rome / "forged").write_bytes(forged)
    what = {"identity": "identity key", "flower": "Flower key", "dns": "host name", "tls": "TLS key was certified"}[
        shared
    ]
    said = f"the {what}"
    unchanged(desk, lambda: desk.issue("rome", "--dns", dns, identity=identity.keyid, bundle="forged"), 1, said)


def test_the_coordinator_gets_a_certificate_that_only_serves(desk: Desk) -> None:
    assert desk.enroll("hub", "--role", "server", "--dns", "hub.example.org")[0] == 0
    assert desk.issue("hub", "--role", "server", "--dns", "hub.example.org")[0] == 0
    hub = Holder("hearts", "hub", "hub.example.org", Role.SERVER)
    root = read_certificate((desk.folder / "ca/root.pem").read_bytes())
    (path,) = desk.issued()
    leaf = read_certificate(path.read_bytes())
    check_leaf(leaf, root, now=ca_command._now(), holder=hub, usage=Usage.SERVER)
    with pytest.raises(VerificationError, match="not for use as a client"):
        check_leaf(leaf, root, now=ca_command._now(), holder=hub, usage=Usage.CLIENT)


def test_wrong_words_change_nothing(desk: Desk) -> None:
    for act, reason in (
        (lambda: desk.enroll("berlin"), "not an empty folder"),
        (lambda: desk.enroll("Rome"), "cannot name a site"),
        (lambda: desk.enroll("rome", federation="a b"), "cannot name a federation"),
        (lambda: desk.enroll("rome", "--dns", "*.b"), "not a host name"),
        (lambda: desk.enroll("rome", "--role", "king"), "--role"),
        (lambda: desk.enroll("rome", "--renew"), "cannot be read"),
        (lambda: desk.enroll("berlin", "--renew", "--dns", "a.b"), "names stay"),
        (lambda: desk.enroll("berlin", "--renew", "--role", "server"), "names stay"),
        (lambda: desk.enroll("berlin", "--renew", federation="lungs"), "keys for the federation hearts"),
        (lambda: desk("site", "enroll", "--site", "rome"), "--federation"),
        (lambda: desk("ca", "init", desk.folder / "ca", "--federation", "hearts"), "not an empty folder"),
        (lambda: desk("ca", "init", desk.folder / "x", "--federation", "A"), "cannot name a federation"),
        (lambda: desk("ca", "show", desk.folder / "x"), "cannot be read"),
    ):
        unchanged(desk, act, 2, reason)


@pytest.mark.parametrize("name", ["root.key", "root.pem", "issued", "."])
def test_a_root_that_others_can_read_does_not_sign(desk: Desk, name: str) -> None:
    path = desk.folder / "ca" / name
    path.chmod(0o755 if path.is_dir() else 0o644)
    unchanged(desk, desk.issue, 2, "open to other users")


def test_a_root_folder_that_lost_something_says_so(desk: Desk) -> None:
    desk.issue()
    root = desk.folder / "ca"
    (root / "issued").rename(desk.folder / "issued")
    unchanged(desk, lambda: desk("ca", "show", root), 2, "issued cannot be read")
    (desk.folder / "issued").rename(root / "issued")
    (root / "root.pem").write_bytes(desk.issued()[0].read_bytes())
    unchanged(desk, lambda: desk("ca", "show", root), 1, "not the root certificate")


@pytest.mark.parametrize("name", ["identity.key", "flower.key", "enrol-berlin.json", "."])
def test_a_site_that_others_can_read_does_not_renew(desk: Desk, name: str) -> None:
    path = desk.folder / "berlin" / name
    path.chmod(0o755 if path.is_dir() else 0o644)
    unchanged(desk, lambda: desk.enroll("berlin", "--renew"), 2, "open to other users")


def test_a_swapped_key_file_is_noticed(desk: Desk) -> None:
    desk.enroll("paris")
    berlin, paris = desk.folder / "berlin", desk.folder / "paris"
    (paris / "identity.key").rename(berlin / "identity.key")
    unchanged(desk, lambda: desk.enroll("berlin", "--renew"), 2, "not the key that was enrolled")
    (berlin / "tls.key").rename(berlin / "identity.key")
    with pytest.raises(ConfigError, match="not an Ed25519"):
        site_keys.read_identity(berlin)
    for name, curve in (("flower.key", ec.SECP256R1()), ("identity.key", ec.SECP384R1()), ("enrol-berlin.json", None)):
        with pytest.raises(ConfigError, match="not a private key on"):
            site_keys.read_ec_key(berlin / name, curve or ec.SECP256R1())


@pytest.mark.parametrize("when", range(4))
def test_an_interrupt_at_any_file_leaves_nothing_half_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    left = [when]

    def interrupted(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1
        write_new(path, data)

    for module in (site_keys, ca_command):
        monkeypatch.setattr(module, "write_new", interrupted)
    acts: tuple[tuple[int, Callable[[], tuple[int, str]]], ...] = (
        (4, lambda: desk.enroll("rome")),
        (2, lambda: desk.enroll("berlin", "--renew")),
        (2, desk.issue),
        (2, lambda: desk("ca", "init", desk.folder / "root", "--federation", "hearts")),
    )
    for files, act in acts:
        if when >= files:
            continue
        left[0] = when
        before = desk.files()
        assert act() == (130, "interrupted; what was done and spent so far is kept\n")
        assert desk.files() == before
        assert not list(desk.folder.glob(".*"))


# The bundle.


def signed(node: ec.EllipticCurvePrivateKey = FLOWER, by: SigningKey = IDENTITY, **changes: Any) -> bytes:
    """A bundle with fields exchanged and both signatures made again, as its sender could."""
    body = {**json.loads(BUNDLE), **changes}
    for name in ("signature", "flower_signature"):
        del body[name]
    what = pae("application/vnd.collegium.enrolment+json", canonical.dumps(body))
    body["signature"] = base64.b64encode(by.sign(what)).decode()
    body["flower_signature"] = base64.b64encode(node.sign(what, ec.ECDSA(SHA256()))).decode()
    return canonical.dumps(body) + b"\n"


def edited(**changes: Any) -> bytes:
    return canonical.dumps({**json.loads(BUNDLE), **changes}) + b"\n"


SMALL = ec.derive_private_key(7, ec.SECP256R1())
OTHER = ec.derive_private_key(8, ec.SECP384R1())
REWRAPPED = base64.b64encode(base64.b64decode(flower_key(FLOWER.public_key())) + b"\n").decode()
SWAPPED = json.loads(new_bundle(holder("paris"), identity=IDENTITY, tls=key(10), flower=FLOWER))["request"]


@pytest.mark.parametrize(
    ("bundle", "error", "reason"),
    [
        (edited(id="paris"), VerificationError, "signature does not fit"),
        (edited(dns="a.b"), VerificationError, "signature does not fit"),
        (edited(request=SWAPPED), VerificationError, "signature does not fit"),
        (edited(flower=flower_key(OTHER.public_key())), VerificationError, "signature does not fit"),
        (edited(flower_signature="AAAA"), VerificationError, "not signed by its Flower key"),
        (signed(OTHER), VerificationError, "not signed by its Flower key"),
        (signed(by=SigningKey(b"y" * 32)), VerificationError, "signature does not fit"),
        (signed(request=SWAPPED), VerificationError, "the request is not for"),
        (signed(SMALL, flower=flower_key(SMALL.public_key())), ConfigError, "not a P-384 key"),
        (signed(flower_=1), ConfigError, "not an enrolment request"),
        (signed(flower=REWRAPPED), ConfigError, "one spelling"),
        (signed(flower="AAAA"), ConfigError, "cannot be read"),
        (signed(request="AAAA"), ConfigError, "can be read"),
        (signed(role="king"), ConfigError, "unknown role"),
        (signed(role="server"), VerificationError, "the request is not for"),
        (signed(id=7), ConfigError, "unknown role"),
        (signed(schema="collegium/enrolment/v2"), ConfigError, "not an enrolment request"),
        (signed(federation="Hearts"), ConfigError, "cannot name"),
        (signed(identity="AAAA"), VerificationError, "signature does not fit"),
        (BUNDLE[:-1], ConfigError, "cut short"),
        (BUNDLE + b"\n", ConfigError, "canonical"),
        (b" " * 70_000 + b"\n", ConfigError, "too large"),
        (b"[]\n", ConfigError, "not an enrolment request"),
    ],
)
def test_bundles_that_say_anything_else_are_refused(bundle: bytes, error: type[FederationError], reason: str) -> None:
    with pytest.raises(error, match=reason):
        read_bundle(bundle)


def test_a_bundle_is_read_as_it_was_made() -> None:
    read = read_bundle(BUNDLE)
    assert read == Enrolment(BERLIN, IDENTITY.public_key, flower_key(FLOWER.public_key()), read.request)
    assert read.request.public_key() == key(10).public_key()
    assert keyid(read.identity) == IDENTITY.keyid


def test_no_flipped_bit_in_a_bundle_is_accepted_or_crashes() -> None:
    for position in range(len(BUNDLE)):
        changed = bytearray(BUNDLE)
        changed[position] ^= 1 << position % 7
        with pytest.raises((ConfigError, VerificationError)):
            read_bundle(bytes(changed))


def test_keys_differ_every_time(desk: Desk) -> None:
    desk.enroll("paris")
    for name in ("identity.key", "tls.key", "flower.key"):
        assert read_private(desk.folder / "berlin" / name) != read_private(desk.folder / "paris" / name)


def test_the_clock_of_the_certificates_is_in_utc() -> None:
    assert ca_command._now().utcoffset() == timedelta(0)
    assert isinstance(ca_command._now(), datetime)
