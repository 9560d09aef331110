"""A signed report, in one step: what our own verifier would not accept is never signed."""

import base64
from typing import Any

from privacy.audit import consistency, envelope, statement
from privacy.errors import ConfigError
from privacy.keys import signing


def signer_entry(key: signing.SigningKey, role: str = "run") -> dict[str, str]:
    """Returns the predicate's ``signer`` object for this key: made for one ``run``, or the ``server`` of a charter."""
    return {"role": role, "algorithm": "ed25519", "public_key": base64.b64encode(key.public_key).decode()}


def sign(predicate: dict[str, Any], model_sha256: str, key: signing.SigningKey) -> bytes:
    """Checks, signs and returns the bytes of ``report.dsse.json``.

    Args:
      predicate: Fits ``schemas/privacy-audit-v1.json``; its ``signer`` is ``signer_entry(key)``.
      model_sha256: Of the model file that was written, 64 hex digits.
      key: The run's, or the server's.

    Raises: ConfigError: The predicate does not fit its schema, contradicts itself, or names another signer.
    """
    payload = statement.encode(predicate, model_sha256)
    decoded = statement.decode(payload)  # what cannot be read back is not signed
    if decoded.public_key != key.public_key:
        raise ConfigError("the report names another signer than the key that signs it")
    problems = consistency.of_all(decoded)
    if problems:
        raise ConfigError(f"the report contradicts itself: {problems[0]}")
    return envelope.sign(payload, key)
