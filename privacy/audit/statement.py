"""The in-toto Statement v1 that a report's envelope holds: a model file's digest, and what is claimed about it."""

from dataclasses import dataclass
from typing import Any

from privacy.audit import canonical, envelope, schemas
from privacy.errors import ConfigError

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://collegium.example/privacy-audit/v1"

EPSILON_CLAIMS = {
    "record_dp": "privacy.epsilon",
    "site_dp": "privacy.epsilon.site",
    "distributed_dp": "privacy.epsilon.distributed",
}
"""Claims of differential privacy, by the protection that is on exactly where they are made."""


@dataclass(frozen=True)
class Statement:
    """A decoded statement; all fields are public.

    Attributes:
      subject_name: The model's file name.
      subject_sha256: Its SHA-256, hex.
      predicate: Fits ``schemas/privacy-audit-v1.json``.
    """

    subject_name: str
    subject_sha256: str
    predicate: dict[str, Any]

    @property
    def public_key(self) -> bytes:
        """The raw public key that the report names as its signer."""
        return envelope.decode_base64(self.predicate["signer"]["public_key"])

    @property
    def cosigners(self) -> dict[str, bytes]:
        """Raw identity keys of the sites that may sign beside the signer, by site id."""
        return {entry["site"]: envelope.decode_base64(entry["public_key"]) for entry in self.predicate["cosigners"]}

    def claim(self, claim_id: str) -> dict[str, Any] | None:
        """Returns the claim with that id, if the report makes it."""
        return next((claim for claim in self.predicate["claims"] if claim["id"] == claim_id), None)

    @property
    def unequal(self) -> bool:
        """Whether sites hold different parts of the model, so that an attempt opens one sum for each region."""
        found = self.predicate["submodels"]
        return found is not None and len(found["regions"]) > 1

    @property
    def cut(self) -> bool:
        """Whether the model was cut, so that somebody held a piece of it and saw values of single records."""
        return "releases" in self.predicate

    @property
    def epsilons(self) -> list[dict[str, Any]]:
        """The claims of differential privacy, at most one for each place where noise is added."""
        return [claim for claim_id in EPSILON_CLAIMS.values() if (claim := self.claim(claim_id)) is not None]


def encode(predicate: dict[str, Any], model_sha256: str) -> bytes:
    """Builds the statement and returns its canonical bytes, the payload to sign.

    Args:
      predicate: Fits ``schemas/privacy-audit-v1.json``.
      model_sha256: Of the model file that was written, 64 hex digits.

    Raises: ConfigError: The predicate does not fit its schema.
    """
    schemas.check("privacy-audit-v1", predicate)
    name = next(claim["file"] for claim in predicate["claims"] if claim["id"] == "model.digest")
    return canonical.dumps(
        {
            "_type": STATEMENT_TYPE,
            "subject": [{"name": name, "digest": {"sha256": model_sha256}}],
            "predicateType": PREDICATE_TYPE,
            "predicate": predicate,
        }
    )


def decode(payload: bytes) -> Statement:
    """Reads a statement from a stranger.

    Raises: ConfigError: Not a canonical in-toto Statement, another kind or version of report, or a bad predicate.
    """
    body = canonical.loads(payload, what="the statement")
    if not isinstance(body, dict) or set(body) != {"_type", "subject", "predicateType", "predicate"}:
        raise ConfigError("the envelope does not hold an in-toto statement")
    if body["_type"] != STATEMENT_TYPE or body["predicateType"] != PREDICATE_TYPE:
        raise ConfigError(
            f"not a report of a version that this verifier knows: {str(body['predicateType'])[:80]}",
            hint="Use the version of collegium that wrote it, or a newer one.",
        )
    name, sha256 = _subject(body["subject"])
    schemas.check("privacy-audit-v1", body["predicate"])
    return Statement(name, sha256, body["predicate"])


def _subject(value: Any) -> tuple[str, str]:
    match value:
        case [{"name": str(name), "digest": {"sha256": str(sha256), **others}, **more}] if not others and not more:
            return name, sha256
        case _:
            raise ConfigError("the statement must name exactly one subject by its SHA-256")
