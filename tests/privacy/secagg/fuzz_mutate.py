"""Changes to valid messages: of bytes, and of what the bytes say, so that the result still parses."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import cbor2

from privacy.secagg.encoding import digest

HEADS = (
    *(bytes([major << 5 | 27]) + b"\x7f" + b"\xff" * 7 for major in range(8)),  # lengths of nine million terabytes
    *(bytes([major << 5 | 26, 0x3F, 255, 255, 255]) for major in range(2, 6)),  # a gigabyte
    *(bytes([major << 5 | 31]) for major in range(2, 8)),  # without end
    b"\xc2\x49\x01", b"\xd8\x1c", b"\xd8\x1d\x00", b"\xf7", b"\xa0", b"\x00", b"\x81" * 2000, b"[" * 2000,
)  # fmt: skip
"""Starts of CBOR values: huge lengths, tags, floats, endless strings, nesting."""
NAMES = (
    "", "site-1", "site-2", "spare", "stranger", "SITE-1", "x" * 65, "0", "1", "00", "1" * 30, "\u202e", "\x00",
    "START", "UNM",
)  # fmt: skip
NASTY: tuple[Any, ...] = (
    0, 1, 2, 3, 4, 23, 24, 255, 256, 2**31, 2**32, 2**53, 2**53 + 1, 2**63, 2**64 - 1, -1, 2**64, 0.0, 1.5,
    float("nan"), True, False, None, b"", bytes(4), bytes(16), bytes(32), bytes(33), bytes(64), b"\xff" * 32,
    b"\xff" * 33, b"\x01" + b"\xff" * 32, *NAMES, [], {}, [[]], ["site-1"], [1, 2], {"0": b""}, {"1": b""},
    {"site-1": []}, cbor2.CBORTag(2, b"\x01"), *(cbor2.CBORTag(tag, 1) for tag in (0, 1, 35, 36, 37, 100, 260)),
    *(cbor2.CBORTag(tag, [2**40, 3]) for tag in (4, 5, 28, 30, 258, 261)),
)  # fmt: skip
"""Values that some field somewhere takes, or nearly takes."""

Path = tuple[Any, ...]


@dataclass(frozen=True)
class Form:
    """How a kind of message is taken apart and put together; both may raise."""

    loads: Callable[[bytes], Any]
    dumps: Callable[[Any], bytes]


CBOR = Form(cbor2.loads, lambda value: cbor2.dumps(value, canonical=True))
# Sorted, without white space: RFC 8785 for all that the audit's decoders accept.
JSON = Form(
    json.loads, lambda value: json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
)
LINE = Form(json.loads, lambda value: JSON.dumps(value) + b"\n")


def mutate(data: bytes, pool: Sequence[bytes], random: Random, form: Form) -> bytes:
    """Returns ``data`` changed once or more; parts of messages in ``pool`` may get into it."""
    changed = data
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        # Bytes find what the reader overlooks; trees get past the reader.
        changed = change_tree(changed, pool, random, form) if random.random() < 0.7 else change_bytes(changed, random)
    return changed


def change_bytes(data: bytes, random: Random) -> bytes:
    """Returns ``data`` with a few bytes overwritten, put in or taken out."""
    at = random.randint(0, len(data))
    cut = random.choice([0, 0, 1, 1, 2, 8, len(data)])
    fresh = random.choice([b"", bytes([random.randrange(256)]), random.randbytes(random.randint(1, 9))])
    if random.random() < 0.3:
        fresh = random.choice(HEADS)
    if data[at:] and random.random() < 0.3:
        fresh, cut = bytes([data[at] ^ 1 << random.randrange(8)]), 1
    return data[:at] + fresh + data[at + cut :]


def change_tree(data: bytes, pool: Sequence[bytes], random: Random, form: Form) -> bytes:
    """Returns ``data`` with one node of its tree changed; with bytes changed if it has no tree."""
    try:
        tree = form.loads(data)
        path, node = random.choice(_nodes(tree))
        _, given = random.choice(_parts(random.choice(pool), form))
        changed = form.dumps(_bound(_put(tree, path, _changed(node, given, pool, random, form)), random))
    except Exception:  # noqa: BLE001 -- decoders under test may like what these two refuse, whatever they raise
        return change_bytes(data, random)
    return changed


def _nodes(tree: Any) -> list[tuple[Path, Any]]:
    """Returns every value of the tree and the way to it."""
    found: list[tuple[Path, Any]] = [((), tree)]
    for path, value in found:  # grows while it is read
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found += [((*path, key), item) for key, item in inside]
    return found


@lru_cache(maxsize=256)
def _parts(data: bytes, form: Form) -> list[tuple[Path, Any]]:
    return _nodes(form.loads(data))


def _put(value: Any, path: Path, new: Any) -> Any:
    if not path:
        return new
    copied = value.copy()
    copied[path[0]] = _put(value[path[0]], path[1:], new)
    return copied


def _changed(node: Any, given: Any, pool: Sequence[bytes], random: Random, form: Form) -> Any:
    chance = random.random()
    if chance < 0.3:
        return given if chance < 0.15 else random.choice(NASTY)
    changed: Any = random.choice(NASTY)
    match node:
        case bytes() if len(node) > 100 and random.random() < 0.7:
            changed = change_tree(node, pool, random, form)  # a message inside a message
        case bytes():
            changed = change_bytes(node, random)
        case str():
            changed = change_bytes(node.encode(), random).decode(errors="replace")
        case list():
            changed = _listed(node, given, random)
        case dict():
            changed = _mapped(node, given, random)
        case int() if not isinstance(node, bool):
            changed = node + random.choice([-1, 1, 2**16, -node])
    return changed


def _listed(node: list[Any], given: Any, random: Random) -> list[Any]:
    at = random.randint(0, len(node))
    match random.randrange(5):
        case 0:
            return node[:at] + node[at + 1 :]
        case 1:
            return [*node[:at], given, *node[at:]]
        case 2:
            return random.sample(node, len(node))
        case 3:
            return node[:at] * random.choice([0, 2, 50])
        case _:
            return [*node, *node[:at]]


def _mapped(node: dict[Any, Any], given: Any, random: Random) -> dict[Any, Any]:
    keys = list(node)
    one, two = (random.choice(keys), random.choice(keys)) if keys else ("", "")
    match random.randrange(4):
        case 0:
            return {key: node[key] for key in keys if key not in {one, two}}
        case 1:
            return {**node, random.choice(NAMES): given}
        case 2 if keys:
            return {**node, one: node[two], two: node[one]}
        case _:
            return {(random.choice(["site-3", "2", key]) if key == one else key): item for key, item in node.items()}


def _bound(tree: Any, random: Random) -> Any:
    """Binds a START to its context anew, most of the time: else no changed context would be looked at."""
    if isinstance(tree, dict) and isinstance(tree.get("context"), bytes) and random.random() < 0.8:
        return {**tree, "ctx": digest("ctx", tree["context"])}
    return tree
