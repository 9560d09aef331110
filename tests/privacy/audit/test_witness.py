"""A witness takes a log's growth and nothing else; a proof of a place holds for one entry of one log."""

import pytest

from privacy.audit.checkpoint import Checkpoint, NoteKey, sign
from privacy.audit.merkle import EMPTY_ROOT, consistency_proof, inclusion_proof, leaf_hash, root
from privacy.audit.witness import Witness, growth, open_place, place
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey

ORIGIN = "example.org/log"
KEY = SigningKey(bytes(32))
LOG = NoteKey(ORIGIN, KEY.public_key)
ENTRIES = [b"%d" % number for number in range(12)]
FORK = [*ENTRIES[:4], b"other", *ENTRIES[5:]]


def signed(entries: list[bytes], key: SigningKey = KEY, origin: str = ORIGIN) -> bytes:
    return sign(Checkpoint(origin, len(entries), root([leaf_hash(entry) for entry in entries])), key)


def grown(old: int, entries: list[bytes]) -> bytes:
    return growth(old, consistency_proof(old, [leaf_hash(entry) for entry in entries]), signed(entries))


def seen(size: int) -> Witness:
    return Witness(ORIGIN, LOG).accept(grown(0, ENTRIES[:size]))


def test_it_follows_a_log_that_grows() -> None:
    for first in range(13):
        for second in range(first, 13):
            witness = seen(first)
            after = witness.accept(grown(first, ENTRIES[:second]))
            assert after.seen is not None
            assert after.seen.size == second
            assert witness == seen(first)


@pytest.mark.parametrize(
    ("update", "said"),
    [
        (grown(8, FORK), "example.org/log forked: the log is not shown to begin with the 8 entries"),
        (grown(8, FORK[:8]), "forked: it has two histories of 8 entries"),
        (grown(0, ENTRIES[:7]), "went back: 8 entries were seen, and now it has 7"),
        (grown(0, []), "went back: 8 entries were seen, and now it has 0"),
        (growth(8, (), signed(ENTRIES)), "not shown to begin"),
        (growth(8, (bytes(32),), signed(ENTRIES)), "not shown to begin"),
        (growth(8, (), signed(ENTRIES, SigningKey(bytes([1]) * 32))), "not signed by"),
        (growth(8, (), signed(ENTRIES, KEY, "example.org/another")), "not signed by"),
    ],
)
def test_a_fork_or_a_rollback_is_one_plain_line(update: bytes, said: str) -> None:
    with pytest.raises(VerificationError, match=said) as info:
        seen(8).accept(update)
    assert all(line.isprintable() and len(line) < 200 for line in info.value.lines())


def test_a_state_of_another_log_under_the_same_key() -> None:
    with pytest.raises(VerificationError, match=r"is of example\.org/log, not of example\.org/b"):
        Witness("example.org/b", LOG).accept(grown(0, ENTRIES))


@pytest.mark.parametrize(
    "update",
    [
        b"",
        b"old 8\n",
        grown(8, ENTRIES).replace(b"old 8", b"old 08"),
        grown(8, ENTRIES).replace(b"old 8", b"new 8"),
        grown(8, ENTRIES).replace(b"old 8", b"old 7"),
        grown(7, ENTRIES),
        grown(8, ENTRIES).replace(b"old 8\n", b"old 8\nAAAA\n"),
        grown(8, ENTRIES).replace(b"old 8\n", b"old 8\n\xff\n"),
        growth(8, [bytes(32)] * 64, signed(ENTRIES)),
        b"old 8\n" + b"a" * 200_000,
    ],
)
def test_what_is_no_growth_since_what_was_seen_is_refused(update: bytes) -> None:
    with pytest.raises(ConfigError):
        seen(8).accept(update)


def test_the_first_state_needs_no_proof_and_takes_none() -> None:
    with pytest.raises(ConfigError, match="seen nothing"):
        Witness(ORIGIN, LOG).accept(grown(8, ENTRIES))
    assert Witness(ORIGIN, LOG).accept(grown(0, [])).seen == Checkpoint(ORIGIN, 0, EMPTY_ROOT)


def test_a_place_holds_for_one_entry_of_one_log() -> None:
    leaves = [leaf_hash(entry) for entry in ENTRIES]
    for index, entry in enumerate(ENTRIES):
        proof = place(index, inclusion_proof(index, leaves), signed(ENTRIES))
        assert open_place(proof, entry, LOG) == (index, Checkpoint(ORIGIN, 12, root(leaves)))
        for wrong in (entry + b"0", b""):
            with pytest.raises(VerificationError, match="not show"):
                open_place(proof, wrong, LOG)
        with pytest.raises(VerificationError):
            open_place(proof.replace(b"index %d\n" % index, b"index %d\n" % (11 - index)), entry, LOG)
        with pytest.raises(VerificationError, match="not signed"):
            open_place(proof, entry, NoteKey(ORIGIN, bytes(32)))
    with pytest.raises(ConfigError, match="begin with c2sp"):
        open_place(proof.replace(b"@v1", b"@v2"), entry, LOG)
