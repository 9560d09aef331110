"""Notes and checkpoints against what others published: Go's note tests, a state of sum.golang.org, a real witness."""

import base64

import pytest

from privacy.audit.checkpoint import (
    COSIGNATURE,
    Checkpoint,
    NoteKey,
    cosign,
    open_checkpoint,
    parse_note,
    sign,
)
from privacy.audit.merkle import EMPTY_ROOT
from privacy.errors import ConfigError, VerificationError
from privacy.keys.signing import SigningKey, verify

# golang.org/x/mod/sumdb/note, note_test.go.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The state of sum.golang.org that tlog-checkpoint's example is made of, under its own name; the key is in Go's source.
SUMDB = NoteKey.from_vkey("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
SUMDB_NOTE = (
    "go.sum database tree\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— sum.golang.org "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
).encode()
# A state of a staging log of Certificate Transparency with cosignatures of public witnesses.
ARCHE = NoteKey.from_vkey(
    "arche2025h1.staging.ct.transparency.dev+ba2f06c0+AU0vHmlGCS/PdN8b2OaGmKprLI8HKM+dJ472xgFYh15f"
)
REMORA = NoteKey.from_vkey("remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2")
ARCHE_TEXT = "arche2025h1.staging.ct.transparency.dev\n1432088532\nU7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=\n"
ARCHE_LINE = (
    "— arche2025h1.staging.ct.transparency.dev "
    "ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=\n"
)
OTHER_LINES = (
    "— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzal"
    "ApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=\n"
)
REMORA_LINE = (
    "— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB"
    "0DrAWfBw==\n"
)
ARCHE_NOTE = f"{ARCHE_TEXT}\n{OTHER_LINES}{ARCHE_LINE}{REMORA_LINE}".encode()

KEY, OTHER = SigningKey(bytes(32)), SigningKey(bytes([1]) * 32)
LOG = NoteKey("example.org/log", KEY.public_key)
STATE = Checkpoint("example.org/log", 7, bytes(range(32)))
NOTE = sign(STATE, KEY)


def test_go_s_key_and_note() -> None:
    key = NoteKey.from_vkey(PETER)
    assert (key.name, key.key_id.hex(), key.to_vkey()) == ("PeterNeumann", "c74f20a3", PETER)
    assert SigningKey(PETER_SEED).public_key == key.public_key
    note = parse_note(f"{PETER_TEXT}\n{PETER_LINE}".encode())
    (line,) = note.signatures
    assert (note.text, line.line(), line.key_id) == (PETER_TEXT, PETER_LINE, key.key_id)
    assert line.signature == SigningKey(PETER_SEED).sign(PETER_TEXT.encode())
    verify(key.public_key, line.signature, note.text.encode())


@pytest.mark.parametrize(
    "wrong",
    [
        *(PETER[:end] for end in range(len(PETER))),
        *(PETER[:place] + chr(ord(PETER[place]) + 1) + PETER[place + 1 :] for place in range(len(PETER))),
        # With fitting key ids: too long a key, and a type that nobody assigned (note_test.go).
        "PeterNeumann+cc469956+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TWBADKEY==",
        "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
    ],
)
def test_a_mangled_verifier_key_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        NoteKey.from_vkey(wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        PETER_TEXT.encode(),
        f"{PETER_TEXT}\n".encode(),
        f"{PETER_TEXT}\n{PETER_LINE}"[:-1].encode(),
        f"\x01{PETER_TEXT}\n{PETER_LINE}".encode(),
        b"\xff" + f"{PETER_TEXT}\n{PETER_LINE}".encode(),
        f"{PETER_TEXT}\n{PETER_LINE.replace('Peter', 'Peter ')}".encode(),
        f"{PETER_TEXT}\n{PETER_LINE.replace('Peter', 'Peter+')}".encode(),
        f"{PETER_TEXT}\n{PETER_LINE}Unexpected line.\n".encode(),
        f"{PETER_TEXT}\n{PETER_LINE * 101}".encode(),
        f"{PETER_TEXT}\n{PETER_LINE.replace('—', '-')}".encode(),
        f"{PETER_TEXT}\n{PETER_LINE.replace('AM=', 'AN=')}".encode(),  # base64 with unused bits set
        f"{PETER_TEXT}\n— PeterNeumann x08gow==\n".encode(),  # a key id and no signature
        b"a" * 70_000,
    ],
)
def test_what_is_no_note_is_refused(wrong: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_note(wrong)


def test_a_state_of_sum_golang_org() -> None:
    state = open_checkpoint(SUMDB_NOTE, SUMDB)
    assert (state.origin, state.size) == ("go.sum database tree", 20852163)
    # The same under the name that the example of tlog-checkpoint puts there does not hold.
    with pytest.raises(VerificationError, match="does not fit"):
        open_checkpoint(SUMDB_NOTE.replace(b"go.sum database tree", b"example.com/behind-the-sofa"), SUMDB)


def test_a_public_witness_s_cosignature() -> None:
    assert REMORA.kind == COSIGNATURE
    assert open_checkpoint(ARCHE_NOTE, ARCHE).cosigned == {}
    state = open_checkpoint(ARCHE_NOTE, ARCHE, [REMORA])
    assert (state.size, state.cosigned) == (1432088532, {"remora.n621.de": 0x6A122120})
    later = ARCHE_NOTE.replace(b"2net5wAAAABqEiEg", b"2net5wAAAABqEiEh")
    assert open_checkpoint(later, ARCHE).size == state.size  # not a key that this reader knows
    with pytest.raises(VerificationError, match=r"of remora\.n621\.de that does not fit"):
        open_checkpoint(later, ARCHE, [REMORA])


def test_our_own_notes() -> None:
    witness = NoteKey("example.org/w", OTHER.public_key, COSIGNATURE)
    note = cosign(NOTE, "example.org/w", OTHER, time=1679315147)
    assert open_checkpoint(NOTE, LOG) == STATE
    assert open_checkpoint(note, LOG, [witness]).cosigned == {"example.org/w": 1679315147}
    # tlog-cosignature, "Ed25519 signed message"
    message = b"cosignature/v1\ntime 1679315147\n" + STATE.text().encode()
    verify(OTHER.public_key, parse_note(note).signatures[1].signature[8:], message)
    # A cosignature says nothing as a log's signature, nor the other way round.
    for key in (NoteKey("example.org/w", OTHER.public_key), witness):
        with pytest.raises(VerificationError):
            open_checkpoint(note, key._replace(name="example.org/log"))
    with pytest.raises(VerificationError, match="not signed by"):
        open_checkpoint(note, NoteKey("example.org/log", OTHER.public_key))


def test_every_changed_bit_of_a_note_is_found() -> None:
    for bit in range(8 * len(NOTE)):
        changed = bytearray(NOTE)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises((ConfigError, VerificationError)):
            open_checkpoint(bytes(changed), LOG)


@pytest.mark.parametrize(
    "text",
    [
        "example.org/log\n7\n",
        STATE.text() + "extension\n",
        STATE.text().replace("\n7\n", "\n07\n"),
        STATE.text().replace("\n7\n", "\n+7\n"),
        STATE.text().replace("\n7\n", "\n-7\n"),
        STATE.text().replace("\n7\n", "\n٧\n"),
        STATE.text().replace("\n7\n", "\n7 \n"),
        STATE.text().replace("\n7\n", "\n" + "9" * 40 + "\n"),
        STATE.text().replace("\n7\n", "\n0\n"),  # an empty log has one root
        STATE.text().replace("example.org/log", ""),
        "example.org/log\n7\nAAAA\n",
        "example.org/log\n7\nnot base64\n",
    ],
)
def test_what_is_signed_but_no_checkpoint_is_refused(text: str) -> None:
    line = parse_note(NOTE).signatures[0]._replace(signature=KEY.sign(text.encode())).line()
    with pytest.raises(ConfigError):
        open_checkpoint(f"{text}\n{line}".encode(), LOG)


def test_an_empty_log_may_be_signed() -> None:
    empty = Checkpoint("example.org/log", 0, EMPTY_ROOT)
    assert open_checkpoint(sign(empty, KEY), LOG) == empty


@pytest.mark.parametrize("name", ["", "two words", "a+b", "a\u2003b", "a\nb"])
def test_a_name_is_one_word(name: str) -> None:
    with pytest.raises(ConfigError):
        sign(Checkpoint(name, 7, bytes(32)), KEY)
