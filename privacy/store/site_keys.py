"""A site's folder of keys: three keys for three purposes, made here; only the bundle of public keys is sent.

``identity.key`` (Ed25519) signs FSA1 messages and reports; ``tls.key`` (P-256) opens connections;
``flower.key`` (P-384, OpenSSH) is what Flower's SuperLink knows the node by. Renewing makes a new TLS key beside the
old one, ``tls-2.key``, and a bundle that the same identity signs.
"""

from itertools import count
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from privacy.enrolment.bundle import Enrolment, new_bundle, read_bundle
from privacy.enrolment.certificates import Holder, key_from, seed_bytes
from privacy.errors import ConfigError
from privacy.keys.signing import SEED_BYTES, SigningKey
from privacy.secagg.encoding import Entropy
from privacy.store.key_files import new_folder, read_private, write_new

IDENTITY_FILE = "identity.key"
FLOWER_FILE = "flower.key"
TLS_FILE = "tls.key"

_P256, _P384 = ec.SECP256R1(), ec.SECP384R1()


def fresh_key(entropy: Entropy, curve: ec.EllipticCurve = _P256) -> ec.EllipticCurvePrivateKey:
    """Makes a private key, for TLS and for a root unless another curve is named."""
    return key_from(entropy(seed_bytes(curve)), curve)


def to_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """Spells a private key for ``write_new``. Secret; the file's mode protects it, there is no passphrase."""
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def read_ec_key(path: Path, curve: ec.EllipticCurve = _P256) -> ec.EllipticCurvePrivateKey:
    """Reads a TLS, root or Flower key.

    Raises: ConfigError: Others could read it, or it is not a private key on ``curve``.
    """
    data = read_private(path)
    load = load_ssh_private_key if b"BEGIN OPENSSH" in data else load_pem_private_key
    try:
        key = load(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != curve.name:
        raise ConfigError(f"{path} is not a private key on {curve.name}")
    return key


def read_identity(folder: Path) -> SigningKey:
    """Reads the identity key of a site's folder. Raises: ConfigError: Others could read it, or it is none."""
    path = folder / IDENTITY_FILE
    data = read_private(path)
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 private key")
    return SigningKey(key.private_bytes_raw())


def create(folder: Path, holder: Holder, entropy: Entropy) -> Path:
    """Makes the folder with three new keys and the bundle in it, or nothing.

    Returns: The bundle's path.
    Raises: ConfigError: The folder exists and holds something, or cannot be written.
    """
    seed, tls, flower = entropy(SEED_BYTES), fresh_key(entropy), fresh_key(entropy, _P384)
    name = f"enrol-{holder.id}.json"
    with new_folder(folder) as draft:
        write_new(draft / IDENTITY_FILE, to_pem(Ed25519PrivateKey.from_private_bytes(seed)))
        write_new(draft / TLS_FILE, to_pem(tls))
        write_new(draft / FLOWER_FILE, to_pem(flower, PrivateFormat.OpenSSH))
        write_new(draft / name, new_bundle(holder, identity=SigningKey(seed), tls=tls, flower=flower))
    return folder / name


def renew(folder: Path, site: str, federation: str, entropy: Entropy) -> tuple[Path, Path]:
    """Makes a new TLS key beside the old ones and a bundle for it; identity, Flower key and names stay.

    Returns: The paths of the new key and of the bundle.
    Raises: ConfigError: The folder is not that site's, its modes are wide, or it cannot be written.
    """
    first = read_enrolment(folder, site)
    if first.holder.federation != federation:
        raise ConfigError(f"{folder} holds keys for the federation {first.holder.federation}, not {federation}")
    identity, flower = read_identity(folder), read_ec_key(folder / FLOWER_FILE, _P384)
    if identity.public_key != first.identity:
        raise ConfigError(f"{folder / IDENTITY_FILE} is not the key that was enrolled")
    tls = fresh_key(entropy)
    for number in count(2):
        key, bundle = folder / f"tls-{number}.key", folder / f"enrol-{site}-{number}.json"
        if not key.exists() and not bundle.exists():
            break
    try:
        write_new(key, to_pem(tls))
        write_new(bundle, new_bundle(first.holder, identity=identity, tls=tls, flower=flower))
    except BaseException:
        if not bundle.exists():
            key.unlink(missing_ok=True)  # nobody has asked for a certificate for it
        raise
    return key, bundle


def read_enrolment(folder: Path, site: str) -> Enrolment:
    """Reads the first bundle of a site's folder. Raises: ConfigError, VerificationError: As read_bundle."""
    return read_bundle(read_private(folder / f"enrol-{site}.json"))
