"""Keys that a charter may list: public keys that somebody can hold, each in its one spelling.

A key that only looks like one is an attack: under an Ed25519 key of small order everybody's signature holds, so whoever
writes the draft could sign in the name of an officer or a site. The library's ``verify`` does not refuse such keys.

See: RFC 8032, 5.1 (the curve) and 5.1.3 (points, and that ``y`` is below ``p``); docs/how-to-federation.md.
"""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from privacy.audit.envelope import decode_base64
from privacy.enrolment.bundle import flower_key
from privacy.errors import ConfigError
from privacy.keys.signing import PUBLIC_KEY_BYTES

_P = 2**255 - 19
_D = -121665 * pow(121666, -1, _P) % _P
_OF_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL = frozenset({0, 1, _P - 1, _OF_ORDER_8, _P - _OF_ORDER_8})
"""``y`` of the eight points whose order divides 8."""


def check_signing_key(raw: bytes, whose: str) -> None:
    """Refuses what is no Ed25519 public key, or one under which anybody can sign.

    Args:
      raw: From a stranger.
      whose: For the message.

    Raises: ConfigError: Not 32 bytes, not a point, a point of small order, or a second spelling of a point.
    """
    y = int.from_bytes(raw, "little") % 2**255  # the highest bit is the sign of x
    x_squared = (y * y - 1) * pow(_D * y * y + 1, -1, _P) % _P
    is_point = pow(x_squared, (_P - 1) // 2, _P) == 1  # Euler; x = 0 belongs to two points of small order
    if len(raw) != PUBLIC_KEY_BYTES or y >= _P or y in _SMALL or not is_point:
        raise ConfigError(f"the key of {whose} is no Ed25519 key that somebody alone can sign with")


def check_flower_key(spelled: str, whose: str) -> None:
    """Refuses what is not a P-384 key as Flower's header spells it. Raises: ConfigError: It is not."""
    try:
        key = load_pem_public_key(decode_base64(spelled))
    except (ValueError, UnsupportedAlgorithm, ConfigError):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp384r1" or flower_key(key) != spelled:
        raise ConfigError(f"the Flower key of {whose} is not a P-384 key in its one spelling")
