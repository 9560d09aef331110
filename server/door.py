"""Where requests come in: HTTP with clocks and caps, the caller's certificate at each request, and a filter per route.

A stranger gets no further than the TLS handshake. Whoever has a certificate is still bounded in what a head, a body, an
idle connection and an unread answer may cost, and what reaches Flower's app is a complete body of a listed route, from
a caller whom the charter names, under the caller's own Flower key.
"""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

from cryptography.x509 import Certificate, load_der_x509_certificate
from fastapi import FastAPI
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from privacy.enrolment.certificates import Usage, check_leaf, holder_of
from privacy.errors import VerificationError
from server.admission import Limits, Mail, Peer, Peers, Refused, Turns
from server.superlink import KEY_HEADER

PEER = "collegium.peer"
REFUSED = b"collegium-refused"
"""Header of every refusal of ours, with its reason; Flower uses 403 too, for a run that is over."""

_DOOR = "collegium.door"
_HEAD = 300_000  # bytes; the transport hands over up to 256 KiB at a time, of which a head may be the least part
_LINGER = 0.5  # seconds that a refused caller has to read why
_SLICE = 64 * 1024

SMALL = frozenset(
    f"/v1/fleet/{name}"
    for name in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "pull-object",
        "confirm-message-received",
    )
)
LARGE = frozenset({"/v1/fleet/push-object"})
_PULL = "/v1/fleet/pull-object"
"""Routes by what bodies may weigh. Flower's others are closed: nodes come from the charter, bundles from nobody."""

Scope = MutableMapping[str, Any]
Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]
Send = Callable[[Event], Awaitable[None]]
Identify = Callable[[asyncio.BaseTransport], Peer | int]


class Door(HttpToolsProtocol):
    """One connection: knows its peer, and is cut when a head takes too long or anything takes too much.

    Args:
      identify: Says who is at the other end, a certificate's ``Peer`` or a local user's uid; raises
        ``VerificationError`` for somebody with whom not a word is exchanged.
      report: Takes the one line about such a caller.
    """

    def __init__(
        self, config: Config, state: ServerState, limits: Limits, identify: Identify, report: Callable[[str], None]
    ) -> None:
        super().__init__(config, state, {})
        self.peer: Peer | int | None = None
        self._limits, self._identify, self._report = limits, identify, report
        self._in_head, self._taken = True, 0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Learns who is calling and starts the clock of the first head."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_SLICE)
        try:
            self.peer = self._identify(transport)
        except VerificationError as error:
            self._report(f"refused a connection: {error}")
            transport.abort()
            return
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Counts every byte of a request, whatever it claims to be, before the parser keeps any of it."""
        if self.transport.is_closing():
            return
        self._taken += len(data)
        # Framing of a body in tiny chunks costs more than the body; trailers and chunk extensions are in here too.
        if self._taken > _HEAD + (0 if self._in_head else 2 * self._limits.large):
            self.transport.abort()
            return
        if self._in_head and self._timer is None:
            self._start_timer()
        super().data_received(data)

    def on_message_begin(self) -> None:
        """Names the peer in the request's scope; a third request before the first is answered is an error."""
        if self.pipeline:  # one may wait: Flower's last, empty part of an answer comes after the caller has it all
            raise ValueError("requests are not pipelined here")
        if self._timer is None:  # it came in one piece with the end of another request
            self._start_timer()
        super().on_message_begin()
        here: Any = {PEER: self.peer, _DOOR: self}
        self.scope["extensions"] = here

    def on_headers_complete(self) -> None:
        """Ends the clock of the head; the filter's clocks go on from here."""
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Begins to count the next request."""
        self._in_head, self._taken = True, 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Cuts a connection that is to close and whose caller does not let it."""
        super().on_response_complete()
        if self.transport.is_closing():
            self.loop.call_later(_LINGER, self.transport.abort)

    def _start_timer(self) -> None:
        self._timer = self.loop.call_later(self._limits.idle, self.transport.abort)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def by_certificate(root: Certificate, clock: Callable[[], float]) -> Identify:
    """Returns who holds the certificate of a TLS connection: issued by ``root`` in our profile, for a client, in force.

    TLS has checked the signature and the dates; this checks what TLS does not know, and whom the charter names is
    checked at each request.
    """

    def identify(transport: asyncio.BaseTransport) -> Peer:
        der = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        try:
            leaf = load_der_x509_certificate(der)
            holder = holder_of(leaf)
        except (TypeError, ValueError) as error:
            raise VerificationError("the certificate cannot be read") from error
        check_leaf(leaf, root, now=datetime.fromtimestamp(clock(), UTC), holder=holder, usage=Usage.CLIENT)
        return Peer(holder.uri, format(leaf.serial_number, "x"), leaf.not_valid_after_utc.timestamp())

    return identify


def by_user(users: frozenset[int]) -> Identify:
    """Returns the uid at the other end of a unix socket, by the kernel's word; only ``users`` may be there."""

    def identify(transport: asyncio.BaseTransport) -> int:
        found = transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", found)
        if uid not in users:
            raise VerificationError(f"user {uid} may not use the control socket")
        return int(uid)

    return identify


class Gate:
    """The public listener's app: passes on what the charter, the limits and the ownership of messages allow.

    Args:
      peers: Returns the charter in force; called at each request.
      report: Takes a line for each refusal that concerns a person: whoever the charter does not admit.
    """

    def __init__(
        self,
        app: FastAPI,
        peers: Callable[[], Peers],
        limits: Limits,
        *,
        clock: Callable[[], float],
        report: Callable[[str], None],
    ) -> None:
        self._app, self._peers, self._limits, self._clock, self._report = app, peers, limits, clock, report
        self._mail, self._turns = Mail(app, limits), Turns(limits, clock)
        self._caps = dict.fromkeys(SMALL, limits.small) | dict.fromkeys(LARGE, limits.large)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        peer = scope["extensions"][PEER]
        try:
            flower_key, cap, large = self._admit(scope, peer)
            self._turns.count(peer.uri)
            if large:
                async with self._turns.transfer(peer.uri):
                    await self._pass(scope, receive, send, flower_key, cap)
            else:
                await self._pass(scope, receive, send, flower_key, cap)
        except Refused as refused:
            if refused.status == 403:
                self._report(f"refused {peer.uri}: {refused}")
            await _refuse(send, refused)

    def _admit(self, scope: Scope, peer: Peer) -> tuple[str, int, bool]:
        """Checks all that the head says. Returns the Flower key, the cap of the body, and if it needs a turn."""
        peers = self._peers()
        peers.check(peer, self._clock())
        path = scope["raw_path"].decode("ascii", "replace")
        cap = self._caps.get(path)
        if cap is None or scope["method"] != "POST" or scope["query_string"]:
            raise Refused(404, "route", "there is nothing here")
        headers, flower_key = scope["headers"], peers.flower_keys[peer.uri]
        if [value for name, value in headers if name == KEY_HEADER] != [flower_key.encode()]:
            raise Refused(403, "key", f"the Flower key is not the one that the charter lists for {peer.uri}")
        if any(name == b"content-encoding" for name, _ in headers):
            raise Refused(415, "packed", "bodies are not compressed here")
        lengths = [int(value) for name, value in headers if name == b"content-length"]
        if any(length > cap for length in lengths):
            raise Refused(413, "size", f"a body has at most {cap} bytes here")
        known_small = cap == self._limits.small or (lengths != [] and max(lengths) <= self._limits.small)
        return flower_key, cap, not known_small or path == _PULL  # what is pulled may be large as well

    async def _pass(self, scope: Scope, receive: Receive, send: Send, flower_key: str, cap: int) -> None:
        body = await self._body(receive, cap)
        if body is None:
            return
        self._mail.check(scope["path"], body, flower_key)
        events = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Event:
            return events.pop() if events else await receive()

        async def slowly(event: Event) -> None:
            """Sends no faster than the caller takes, so that an unread answer is not kept here for long."""
            body, more = event.get("body", b""), event.get("more_body", False)
            for start in range(0, max(len(body), 1), _SLICE):
                rest = start + _SLICE < len(body)
                part = {**event, "body": body[start : start + _SLICE], "more_body": more or rest} if body else event
                try:
                    await asyncio.wait_for(send(part), self._limits.idle)
                except TimeoutError:
                    scope["extensions"][_DOOR].transport.abort()

        await self._app(scope, replay, slowly)

    async def _body(self, receive: Receive, cap: int) -> bytes | None:
        """Reads a body under its cap and clocks; None if the caller went away."""
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self._limits.whole):
                while more:
                    event = await asyncio.wait_for(receive(), self._limits.idle)
                    if event["type"] == "http.disconnect":
                        return None
                    body += event.get("body", b"")
                    more = event.get("more_body", False)
                    if len(body) > cap:
                        raise Refused(413, "size", f"a body has at most {cap} bytes here")
        except TimeoutError:
            raise Refused(408, "slow", "the body did not come in time") from None
        return bytes(body)


async def _refuse(send: Send, refused: Refused) -> None:
    line = f"{refused}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(line)).encode()),
        (REFUSED, refused.reason.encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": line})
