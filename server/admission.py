"""Who may do what at the public listener, by the charter in force; what one site may cost; whose messages are whose.

Nothing here reads a socket: ``server/door.py`` does, and asks.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from server.superlink import addressed, addressee, forget, node_id, read

MEBIBYTE = 2**20


class Refused(Exception):  # noqa: N818 -- an answer, not a fault of ours
    """A request ends here.

    Attributes:
      status: Of the answer: 403 only where the charter does not admit the caller; 503 is for back-off.
      reason: One word for the caller's program; ``charter`` is the one that trying again cannot mend.
    """

    def __init__(self, status: int, reason: str, line: str) -> None:
        super().__init__(line)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Limits:
    """What a connection and a site may cost; sizes in bytes, times in seconds.

    Attributes:
      large: A body that carries an object: 4 MB and its wrapping.
      small: Any other body.
      transfers: Large bodies in hand at once, over all sites; a site has one, its others wait unread.
      idle: Without a byte of a body or an answer taken; also the time for a head.
      whole: For one body.
      patience: For a turn to transfer.
      connections: Of one site.
      rate: Requests of one site a second, on average; ``burst`` of them at once.
      reply: All objects of one answer.
      parts: Objects of one answer.
    """

    large: int = 4 * MEBIBYTE + MEBIBYTE // 2
    small: int = 64 * 1024
    transfers: int = 16
    idle: float = 10.0
    whole: float = 60.0
    patience: float = 10.0
    connections: int = 32
    rate: float = 100.0
    burst: int = 300
    reply: int = 256 * MEBIBYTE
    parts: int = 256


@dataclass(frozen=True)
class Peer:
    """What the certificate of a connection says.

    Attributes:
      uri: The holder's ``spiffe`` name.
      serial: In hex, as a charter spells it.
      until: Its last second, as a Unix time.
    """

    uri: str
    serial: str
    until: float


@dataclass(frozen=True)
class Peers:
    """What the charter in force says of who may connect; all public.

    Attributes:
      federation: Its name, the trust domain of ``spiffe`` names.
      flower_keys: Value of Flower's key header by ``spiffe`` name of the site.
      revoked: Serials of certificates taken back, in hex without leading zeros.
    """

    federation: str
    flower_keys: Mapping[str, str]
    revoked: frozenset[str] = frozenset()

    def check(self, peer: Peer, now: float) -> None:
        """Checks that a connection may be used now. Raises: Refused: 403, with the reason."""
        if peer.serial in self.revoked:
            raise Refused(403, "charter", f"the certificate {peer.serial} was revoked by the charter")
        if now > peer.until:
            raise Refused(
                403,
                "expired",
                f"the certificate expired on {datetime.fromtimestamp(peer.until, UTC):%Y-%m-%d %H:%M} UTC",
            )
        if peer.uri not in self.flower_keys:
            raise Refused(403, "charter", f"{peer.uri} is not in the charter")


@dataclass
class Bucket:
    """Allows ``rate`` events a second on average, and ``burst`` at once."""

    rate: float
    burst: float
    level: float = field(init=False)
    last: float = 0.0

    def __post_init__(self) -> None:
        self.level = self.burst

    def takes(self, now: float) -> bool:
        """Whether one more event is allowed at ``now``, and if so counts it."""
        self.level = min(self.burst, self.level + max(now - self.last, 0.0) * self.rate)
        self.last = now
        if self.level < 1:
            return False
        self.level -= 1
        return True


class Turns:
    """Bounds what sites cost together: a rate each, one large body each, and a few large bodies in all."""

    def __init__(self, limits: Limits, clock: Callable[[], float]) -> None:
        self._limits, self._clock = limits, clock
        self._all = asyncio.Semaphore(limits.transfers)
        self._sites: dict[str, tuple[Bucket, asyncio.Lock]] = {}

    def count(self, uri: str) -> None:
        """Counts one request. Raises: Refused: 503, too many of this site."""
        if not self._of(uri)[0].takes(self._clock()):
            raise Refused(503, "busy", f"more than {self._limits.rate:g} requests a second; ask again later")

    @asynccontextmanager
    async def transfer(self, uri: str) -> AsyncIterator[None]:
        """Holds a turn for one large body. Raises: Refused: 503, none came free in time."""
        lock = self._of(uri)[1]
        try:
            async with asyncio.timeout(self._limits.patience):
                await lock.acquire()
                try:
                    await self._all.acquire()
                except BaseException:
                    lock.release()
                    raise
        except TimeoutError:
            raise Refused(503, "busy", "other transfers are under way; ask again later") from None
        try:
            yield
        finally:
            self._all.release()
            lock.release()

    def _of(self, uri: str) -> tuple[Bucket, asyncio.Lock]:
        """Only names that the charter lists get here: the table cannot be made to grow."""
        if uri not in self._sites:
            self._sites[uri] = (Bucket(self._limits.rate, self._limits.burst), asyncio.Lock())
        return self._sites[uri]


@dataclass
class _Reply:
    """An answer that a node announced: what it may push, and how much."""

    parts: frozenset[str]
    room: int


class Mail:
    """Closes what Flower's handlers leave open: an authenticated node could use messages and objects of any other.

    A node answers only what it was asked, once; pushes only objects of its answers, under a cap; pulls and confirms
    only what is addressed to it.
    """

    _KEPT = 16  # answers per node whose objects may still be on their way

    def __init__(self, app: FastAPI, limits: Limits) -> None:
        self._app, self._limits = app, limits
        self._replies: dict[int, OrderedDict[str, _Reply]] = {}

    def check(self, path: str, body: bytes, flower_key: str) -> None:
        """Checks a complete body before Flower sees it. Raises: Refused: 400 or 409, with the reason."""
        request, node = read(path, body), node_id(flower_key)
        if request is None:
            raise Refused(400, "body", "the body is not what Flower sends here")
        match path.rpartition("/")[2]:
            case "push-messages":
                self._announce(request, node)
            case "push-object":
                self._push(request, node)
            case "pull-object":
                if request.object_id not in addressed(self._app, node):
                    raise Refused(409, "owner", "the object is not part of a message to this node")
            case "confirm-message-received":
                if addressee(self._app, request.message_object_id) != node:
                    raise Refused(409, "owner", "the message is not for this node")

    def _announce(self, request: Any, node: int) -> None:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Refused(409, "owner", "one answer at a time")
        (message,), (tree,) = request.messages_list, request.message_object_trees
        about, parts = message.metadata, tree_ids(tree, self._limits.parts)
        if parts is None:
            raise Refused(409, "owner", f"an answer has at most {self._limits.parts} objects")
        if about.src_node_id != node or about.message_id != tree.object_id or not about.reply_to_message_id:
            raise Refused(409, "owner", "this is not an answer of this node")
        asked = addressee(self._app, about.reply_to_message_id)
        if asked is None:
            return  # the question is gone: Flower says so and stores nothing
        if asked != node:
            raise Refused(409, "owner", "the question was not for this node")
        kept = self._replies.setdefault(node, OrderedDict())
        known = kept.get(about.message_id)
        forget(self._app, about.reply_to_message_id)
        if known is not None and known.parts != parts:
            raise Refused(409, "owner", "the answer was announced with other objects")
        if known is None:
            kept[about.message_id] = _Reply(parts, self._limits.reply)
            if len(kept) > self._KEPT:
                kept.popitem(last=False)

    def _push(self, request: Any, node: int) -> None:
        for reply in self._replies.get(node, {}).values():
            if request.object_id in reply.parts:
                reply.room -= len(request.object_content)
                if reply.room < 0:
                    raise Refused(409, "owner", f"an answer has at most {self._limits.reply} bytes")
                return
        raise Refused(409, "owner", "the object is not part of an answer of this node")


def tree_ids(tree: Any, limit: int) -> frozenset[str] | None:
    """Returns the ids in a tree of objects, or None if it has more than ``limit`` nodes; counts without recursion."""
    found: list[str] = []
    rest = [tree]
    while rest:
        if len(found) + len(rest) > limit:
            return None
        part = rest.pop()
        found.append(part.object_id)
        rest.extend(part.children)
    return frozenset(found)
