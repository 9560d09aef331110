"""Checkpoints: a log's name, size and root in three lines, signed by the log and perhaps by witnesses.

C2SP ``tlog-checkpoint`` on C2SP ``signed-note``, with Ed25519 for the log (signature type 0x01) and timestamped
Ed25519 for witnesses (``tlog-cosignature``, type 0x04). The parser takes exactly one spelling. Extension lines, which
nobody can audit, are refused; signatures by keys that the reader does not know are ignored, as the format demands.

See: https://c2sp.org/signed-note, https://c2sp.org/tlog-checkpoint, https://c2sp.org/tlog-cosignature (all v1).
"""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from privacy.audit.envelope import decode_base64
from privacy.audit.merkle import EMPTY_ROOT, HASH_BYTES
from privacy.errors import ConfigError, FederationError, VerificationError
from privacy.keys import signing

ED25519 = 0x01
"""Signature type of a log."""
COSIGNATURE = 0x04
"""Signature type of a witness."""
MAX_NOTE_BYTES = 2**16
MAX_SIGNATURES = 64

_DASH = "\u2014"  # em dash, which begins a signature line
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")
_ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 4, 8, 64


class NoteKey(NamedTuple):
    """A public key under a name, as a verifier of notes is told it. All public."""

    name: str
    public_key: bytes
    kind: int = ED25519

    @property
    def key_id(self) -> bytes:
        """Four bytes that a signature line names the key by (signed-note, "Signatures"); not collision resistant."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key).digest()[:_ID_BYTES]

    def to_vkey(self) -> str:
        """Returns the usual one-line form: name, key id, type and key (signed-note, "Verifier keys")."""
        return f"{self.name}+{self.key_id.hex()}+{_base64(bytes([self.kind]) + self.public_key)}"

    @classmethod
    def from_vkey(cls, text: str) -> "NoteKey":
        """Reads the one-line form. Raises: ConfigError: It is none, or of a type that is not used here."""
        parts = text.split("+", 2)
        try:
            name, key_id, coded = parts
            raw = decode_base64(coded)
            key = cls(check_name(name), raw[1:], raw[0])
        except (ValueError, IndexError, ConfigError):
            raise ConfigError("not a verifier key: expected NAME+8 hex digits+base64") from None
        if key.kind not in {ED25519, COSIGNATURE} or len(key.public_key) != signing.PUBLIC_KEY_BYTES:
            raise ConfigError("the verifier key is not an Ed25519 key of a log or of a witness")
        if key.key_id.hex() != key_id:
            raise ConfigError("the verifier key does not have the key id that it names: it was mistyped or cut")
        return key


class Signature(NamedTuple):
    """A signature line; nothing about it is verified."""

    name: str
    key_id: bytes
    signature: bytes

    def line(self) -> str:
        """Returns it as it stands in a note."""
        return f"{_DASH} {self.name} {_base64(self.key_id + self.signature)}\n"


class Note(NamedTuple):
    """Text and signature lines; nothing is verified, so that nothing may be believed."""

    text: str
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log.

    Attributes:
      origin: Which log.
      size: How many entries.
      root: Root of its tree, 32 bytes.
      cosigned: Witnesses whose signatures were checked, with the latest time each gave (seconds since 1970); not part
        of the state.
    """

    origin: str
    size: int
    root: bytes
    cosigned: Mapping[str, int] = field(default_factory=dict, compare=False)

    def text(self) -> str:
        """Returns the note's text, which is what is signed (tlog-checkpoint, "Note text")."""
        return f"{self.origin}\n{self.size}\n{_base64(self.root)}\n"


def sign(checkpoint: Checkpoint, key: signing.SigningKey) -> bytes:
    """Returns the checkpoint as a note that the log signed; the key's name is the origin."""
    own = NoteKey(check_name(checkpoint.origin), key.public_key)
    text = checkpoint.text()
    return f"{text}\n{Signature(own.name, own.key_id, key.sign(text.encode())).line()}".encode()


def cosign(note: bytes, name: str, key: signing.SigningKey, *, time: int) -> bytes:
    """Returns the note with a witness's signature line after the others.

    A witness says by it that at ``time`` this was the largest state of the log that it had seen, and that every state
    it saw before is a beginning of it: only what ``Witness.accept`` returned may be cosigned.

    Args:
      note: A checkpoint, checked by the caller.
      name: Of the witness.
      key: Its key, used for nothing else: the signed text does not name the witness.
      time: Seconds since 1970.
    """
    parsed = parse_note(note)
    own = NoteKey(check_name(name), key.public_key, COSIGNATURE)
    signed = time.to_bytes(_TIME_BYTES, "big") + key.sign(_cosigned(parsed.text, time))
    return note + Signature(name, own.key_id, signed).line().encode()


def open_checkpoint(data: bytes, log: NoteKey, witnesses: Iterable[NoteKey] = ()) -> Checkpoint:
    """Reads a checkpoint from a stranger and checks every signature of a known key.

    Args:
      data: A signed note.
      log: The log's key: its signature must be there.
      witnesses: Keys whose cosignatures are worth something to the reader.

    Raises:
      ConfigError: It is no checkpoint.
      VerificationError: The log did not sign it, or a signature of a known key does not fit.
    """
    note = parse_note(data)
    checkpoint = _parse_text(note.text)
    known = {(key.name, key.key_id): key for key in (*witnesses, log)}
    signed, cosigned = False, dict[str, int]()
    for line in note.signatures:
        key = known.get((line.name, line.key_id))
        if key is None:
            continue
        time = _verify(key, note.text, line.signature)
        if key == log:
            signed = True
        elif time is not None:
            cosigned[key.name] = max(time, cosigned.get(key.name, 0))
    if not signed:
        raise VerificationError(f"the checkpoint of {checkpoint.origin} is not signed by {log.name}")
    return Checkpoint(checkpoint.origin, checkpoint.size, checkpoint.root, cosigned)


def parse_note(data: bytes) -> Note:
    """Splits a signed note into text and signature lines; nothing is verified.

    Raises: ConfigError: It is none (signed-note, "Format").
    """
    if len(data) > MAX_NOTE_BYTES:
        raise ConfigError(f"a signed note is larger than {MAX_NOTE_BYTES // 2**10} KiB")
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise ConfigError("a signed note is not UTF-8") from None
    if not all(line.isprintable() for line in whole.split("\n")):
        raise ConfigError("a signed note holds characters that cannot be printed")
    text, blank, lines = whole.rpartition("\n\n")
    if not blank or not lines.endswith("\n"):
        raise ConfigError("a signed note needs a text, an empty line and whole signature lines")
    signatures = [_parse_line(line) for line in lines[:-1].split("\n")]
    if len(signatures) > MAX_SIGNATURES:
        raise ConfigError(f"a signed note has more than {MAX_SIGNATURES} signatures")
    return Note(text + "\n", tuple(signatures))


def check_name(name: str) -> str:
    """Returns a key's name. Raises: ConfigError: Empty, or with a space, a plus or something unprintable in it."""
    if not name or not name.isprintable() or "+" in name or any(sign.isspace() for sign in name):
        raise ConfigError("the name of a log or witness is one word without +", hint="For instance example.org/log.")
    return name


def parse_size(text: str) -> int:
    """Reads a number of entries: ASCII, no sign, no leading zero, below 10^19. Raises: ConfigError: It is none."""
    if not _DECIMAL.fullmatch(text):
        raise ConfigError("a number of entries is not written as one")
    return int(text)


def parse_hash(text: str) -> bytes:
    """Reads a SHA-256 in canonical base64. Raises: ConfigError: It is none."""
    raw = decode_base64(text)
    if len(raw) != HASH_BYTES:
        raise ConfigError("a hash does not have 32 bytes")
    return raw


def hash_lines(hashes: Sequence[bytes]) -> str:
    """Returns hashes as lines, the inverse of ``parse_hash`` on each."""
    return "".join(f"{_base64(one)}\n" for one in hashes)


def _parse_line(line: str) -> Signature:
    dash, _, rest = line.partition(" ")
    name, _, coded = rest.partition(" ")
    if dash != _DASH:
        raise ConfigError("a signed note has something other than signatures after its last empty line")
    raw = decode_base64(coded)
    if len(raw) <= _ID_BYTES:
        raise ConfigError("a signature line holds no signature")
    return Signature(check_name(name), raw[:_ID_BYTES], raw[_ID_BYTES:])


def _parse_text(text: str) -> Checkpoint:
    lines = text[:-1].split("\n")
    if len(lines) != 3 or not all(lines):
        raise ConfigError("a checkpoint has exactly three lines: the log, its size, its root")
    checkpoint = Checkpoint(lines[0], parse_size(lines[1]), parse_hash(lines[2]))
    if checkpoint.size == 0 and checkpoint.root != EMPTY_ROOT:
        raise ConfigError("a checkpoint of an empty log has the root of another one")
    return checkpoint


def _verify(key: NoteKey, text: str, signature: bytes) -> int | None:
    """Checks one signature; returns the time that a cosignature gives."""
    time = None
    try:
        if key.kind == COSIGNATURE:
            if len(signature) != _TIME_BYTES + _SIGNATURE_BYTES:
                raise VerificationError("a cosignature has the wrong length")
            time = int.from_bytes(signature[:_TIME_BYTES], "big")
            signing.verify(key.public_key, signature[_TIME_BYTES:], _cosigned(text, time))
        else:
            signing.verify(key.public_key, signature, text.encode())
    except FederationError:
        raise VerificationError(f"a checkpoint carries a signature of {key.name} that does not fit") from None
    return time


def _cosigned(text: str, time: int) -> bytes:
    """What a witness signs (tlog-cosignature, "Ed25519 signed message")."""
    return f"cosignature/v1\ntime {time}\n{text}".encode()


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
