"""A bad line: a TCP proxy on loopback that delays, throttles, cuts, goes dead or resets, and heals again.

It runs on a thread of its own and changes while connections are open. TLS passes through it unread.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

_CHUNK = 16_384
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


@dataclass(frozen=True)
class Line:
    """How a line behaves; each holds for either direction.

    Attributes:
      delay: Seconds that every piece of data takes.
      jitter: Seconds that it may take on top, drawn anew for every piece.
      rate: Bytes a second of one connection; 0: no limit.
      cut_after: Bytes after which a connection is reset; 0: never.
      dead: Connections stay open, new ones are taken, and nothing passes: a partition that drops packets.
      refuse: New connections are reset at once, open ones on their next data.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: float = 0.0
    cut_after: int = 0
    dead: bool = False
    refuse: bool = False


GOOD = Line()


@dataclass
class Chaos:
    """A proxy to a port on loopback.

    Attributes:
      target: Port of the server.
      port: Where the proxy listens.
      cuts: Connections that it has reset.
    """

    target: int
    line: Line = GOOD
    cuts: int = 0
    port: int = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)
    _thread: threading.Thread = field(init=False)
    _open: "set[asyncio.StreamWriter]" = field(default_factory=set)
    _drawn: random.Random = field(default_factory=lambda: random.Random(6))  # noqa: S311 - no secret: when data comes

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        server = self._call(asyncio.start_server(self._connected, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def cut(self) -> None:
        """Resets every connection that is open; the line stays as it is."""
        self._call(self._cut())

    def _call(self, coroutine: "Coroutine[Any, Any, Any]") -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _cut(self) -> None:
        for writer in [*self._open]:
            self._reset(writer)

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.line.refuse:
            self.cuts += 1
            self._reset(writer)
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:  # the server is down: so is the line
            self._reset(writer)
            return
        ends = {writer, back}
        self._open |= ends
        try:
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except OSError:
            self.cuts += 1
        finally:
            self._open -= ends
            for end in ends:
                self._reset(end)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes one direction on, until its end or a fault."""
        passed = 0
        while data := await reader.read(_CHUNK):
            while self.line.dead:  # noqa: ASYNC110 -- it changes from another thread
                await asyncio.sleep(0.05)
            line, passed = self.line, passed + len(data)
            if line.refuse or 0 < line.cut_after < passed:
                raise ConnectionResetError
            wait = line.delay + self._drawn.uniform(0, line.jitter) + (len(data) / line.rate if line.rate else 0)
            if wait:
                await asyncio.sleep(wait)
            writer.write(data)
            await writer.drain()
        writer.write_eof()
