"""Bytes with one spelling: labelled hashes, and the small part of deterministic CBOR that FSA1 uses (§1).

The reader knows unsigned integers, byte and text strings, arrays, maps with text keys and booleans; it never sees a
tag, a float or an indefinite length, checks every length against what is left before it allocates, and re-encodes what
it read. Whatever a stranger sends ends in a value or a ``RemoteProtocolError``.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NoReturn

import cbor2

from privacy.errors import LocalProtocolError, RemoteProtocolError

Entropy = Callable[[int], bytes]
"""Returns that many fresh random bytes; ``secrets.token_bytes`` in production."""

PREFIX = b"FSA1/"
MAX_CONTROL_BYTES = 4 * 2**20
"""Largest message other than MSK: n = 100 needs less than half a megabyte."""
MAX_ITEMS = 100_000
"""Most values in one message: FWD among 100 sites has 11,000."""
MAX_DEPTH = 6
"""Deepest nesting; a context in a START has 4."""

_SITE_ID = re.compile(r"[a-z0-9._-]{1,64}", re.ASCII)


def u64(value: int) -> bytes:
    """Returns 8 bytes, big-endian (§1.1)."""
    return value.to_bytes(8, "big")


def digest(label: str, *parts: bytes) -> bytes:
    """Returns ``H(label, parts)``: every part is preceded by its length, so no two lists collide (§1.1)."""
    state = hashlib.sha256(PREFIX + label.encode() + b"\x00")
    for part in parts:
        state.update(u64(len(part)))
        state.update(part)
    return state.digest()


def labelled(label: str, content: bytes) -> bytes:
    """Returns ``"FSA1/" ‖ label ‖ 0x00 ‖ content``: what is signed (§1.3), and the info of the KDF (§1.2)."""
    return PREFIX + label.encode() + b"\x00" + content


def draw(entropy: Entropy, size: int) -> bytes:
    """Returns exactly ``size`` bytes of ``entropy``. Secret.

    Raises: LocalProtocolError: The source gave fewer or more; a short seed must not become a short key.
    """
    fresh = entropy(size)
    if len(fresh) != size:
        raise LocalProtocolError(f"the random source gave {len(fresh)} bytes instead of {size}")
    return fresh


def is_site_id(value: object) -> bool:
    """Tells whether ``value`` names a site (§1.5)."""
    return isinstance(value, str) and _SITE_ID.fullmatch(value) is not None


def in_order(sites: Iterable[str]) -> bool:
    """Tells whether ``sites`` are sorted by their bytes without repetition (§1.5); for ASCII that is text order."""
    listed = list(sites)
    return all(a < b for a, b in pairwise(listed))


def dumps(value: Any) -> bytes:
    """Returns the deterministic CBOR of ``value`` (RFC 8949 §4.2.1)."""
    return cbor2.dumps(value, canonical=True)


def loads(data: bytes, *, limit: int = MAX_CONTROL_BYTES) -> Any:
    """Reads deterministic CBOR from a stranger.

    Args:
      data: Untrusted bytes.
      limit: Most bytes that are looked at.

    Returns: Values of int, bytes, str, bool, list and dict with text keys.
    Raises: RemoteProtocolError: Anything but the one encoding of such a value.
    """
    if len(data) > limit:
        _refuse(f"a message has more than {limit} bytes")
    reader = _Reader(data)
    value = reader.item(0)
    # §1.4: non-minimal lengths, unsorted or repeated keys and trailing bytes all show here.
    if dumps(value) != data:
        _refuse("a message is not in deterministic form")
    return value


def _refuse(why: str) -> NoReturn:
    raise RemoteProtocolError(why)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._place = 0
        self._items = 0

    def item(self, depth: int) -> Any:
        self._items += 1
        if depth > MAX_DEPTH or self._items > MAX_ITEMS:
            _refuse("a message is nested too deeply or has too many values")
        head = self._take(1)[0]
        if head in {0xF4, 0xF5}:
            return head == 0xF5
        major, low = head >> 5, head & 31
        if major in {1, 6, 7} or low > 27:
            _refuse("a message has a negative number, a tag, a float or an indefinite length")
        argument = low if low < 24 else int.from_bytes(self._take(1 << (low - 24)), "big")
        if major == 0:
            return argument
        if major == 2:
            return bytes(self._take(argument))
        if major == 3:
            return self._text(argument)
        if argument > len(self._data) - self._place:
            _refuse("a message is cut short")
        if major == 4:
            return [self.item(depth + 1) for _ in range(argument)]
        return {self._key(depth + 1): self.item(depth + 1) for _ in range(argument)}

    def _key(self, depth: int) -> str:
        key = self.item(depth)
        if not isinstance(key, str):
            _refuse("a message has a key that is not text")
        return key

    def _text(self, size: int) -> str:
        try:
            return str(self._take(size), "utf-8")
        except UnicodeDecodeError:
            _refuse("a message has text that is not UTF-8")

    def _take(self, size: int) -> memoryview:
        if size > len(self._data) - self._place:
            _refuse("a message is cut short")
        self._place += size
        return self._data[self._place - size : self._place]
