"""A witness of a log, and the two texts that a log hands out: its growth since a size, and the place of an entry.

Growth is the body of C2SP ``tlog-witness``'s ``add-checkpoint`` request, a place is a C2SP ``tlog-proof``; both end in
the log's signed checkpoint. A witness accepts a new state only if the log signed it and it contains all that the
witness has seen, so that a log cannot show two histories to people who share a witness, nor take anything back.

See: https://c2sp.org/tlog-witness, https://c2sp.org/tlog-proof.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from privacy.audit.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    NoteKey,
    hash_lines,
    open_checkpoint,
    parse_hash,
    parse_size,
)
from privacy.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from privacy.errors import ConfigError, VerificationError

_PROOF = "c2sp.org/tlog-proof@v1"
_MAX_HASHES = 63  # as many as a proof about fewer than 2^63 entries can have
_HINT = "Keep both checkpoints: together they are the evidence. Nothing of this run may leave."


def growth(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Returns what a log sends to a witness that has seen ``old`` entries of it."""
    return f"old {old}\n{hash_lines(proof)}\n".encode() + note


def place(index: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """Returns what a log hands out as proof that an entry is in it."""
    return f"{_PROOF}\nindex {index}\n{hash_lines(proof)}\n".encode() + note


def open_place(data: bytes, entry: bytes, log: NoteKey) -> tuple[int, Checkpoint]:
    """Checks a proof that an entry is in a log.

    Args:
      data: As ``place`` returns it, from a stranger.
      entry: The bytes of the entry, which the proof does not contain.
      log: The log's key.

    Returns: Where it stands, and in which state of the log.

    Raises:
      ConfigError: It is not such a proof.
      VerificationError: The entry is another one, or the checkpoint is not the log's.
    """
    magic, _, rest = data.partition(b"\n")
    if magic != _PROOF.encode():
        raise ConfigError(f"the proof does not begin with {_PROOF}")
    index, proof, note = _parse(rest, "index")
    checkpoint = open_checkpoint(note, log)
    verify_inclusion(leaf_hash(entry), index, checkpoint.size, proof, checkpoint.root)
    return index, checkpoint


@dataclass(frozen=True)
class Witness:
    """What was seen of one log; ``accept`` returns the next state and never changes this one.

    Keep it durably before acting on it: a witness that forgets can be shown another history.

    Attributes:
      origin: The log's name.
      log: Its key.
      seen: The largest state seen so far, ``None`` before the first.
    """

    origin: str
    log: NoteKey
    seen: Checkpoint | None = None

    def accept(self, update: bytes) -> "Witness":
        """Takes in what the log says about its growth.

        Args:
          update: As ``growth`` returns it, from a stranger.

        Raises:
          ConfigError: It is no such text.
          VerificationError: The log did not sign it, or it forgets or changes what was seen before.
        """
        old, proof, note = _parse(update, "old")
        new = open_checkpoint(note, self.log)
        if new.origin != self.origin:
            raise VerificationError(f"the checkpoint is of {new.origin}, not of {self.origin}")
        if self.seen is None:
            if old or proof:
                raise ConfigError("a log proves its growth to a witness that has seen nothing of it")
            return replace(self, seen=new)
        self.check(new)
        if old != self.seen.size:
            raise ConfigError(f"the log proves its growth since {old} entries; {self.seen.size} were seen")
        try:
            verify_consistency(self.seen.size, self.seen.root, new.size, new.root, proof)
        except VerificationError as error:
            raise VerificationError(f"{self.origin} forked: {error}", hint=_HINT) from None
        return replace(self, seen=new)

    def check(self, new: Checkpoint) -> None:
        """Refuses what no proof could make right: fewer entries than were seen, or other ones in the same number.

        Raises: VerificationError: The log went back, or forked.
        """
        seen = self.seen
        if seen is None:
            return
        if new.size < seen.size:
            raise VerificationError(
                f"{self.origin} went back: {seen.size} entries were seen, and now it has {new.size}", hint=_HINT
            )
        if new.size == seen.size and new.root != seen.root:
            raise VerificationError(f"{self.origin} forked: it has two histories of {seen.size} entries", hint=_HINT)


def _parse(data: bytes, word: str) -> tuple[int, list[bytes], bytes]:
    """Reads ``word NUMBER``, lines of hashes, an empty line, and leaves the note as it is."""
    if len(data) > 2 * MAX_NOTE_BYTES:
        raise ConfigError("a log's proof is too large")
    head, blank, note = data.partition(b"\n\n")
    if not blank:
        raise ConfigError("a log's proof has no empty line before its checkpoint")
    try:
        first, *lines = head.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise ConfigError("a log's proof is not ASCII before its checkpoint") from None
    told, _, number = first.partition(" ")
    if told != word or len(lines) > _MAX_HASHES:
        raise ConfigError(f"a log's proof does not begin with '{word}', or has more than {_MAX_HASHES} hashes")
    return parse_size(number), [parse_hash(line) for line in lines], note
