"""The end that listens: a synchronous gRPC server over mutual TLS.

TLS admits whoever holds a certificate under the federation's root; everything else is ``reception``'s to decide.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Self

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from clients.channel import frames, transport
from clients.channel.credentials import Identity
from clients.channel.limits import Limits
from clients.channel.reception import Reception, Service
from clients.channel.session import FAILED, told
from clients.channel.stream import Line, StreamSession, after
from privacy.errors import ConfigError
from privacy.store.log import Record

OPENING_SECONDS = 10.0
"""How long a stream may take to say what it wants."""

_LIMITS = Limits()
_LOG = logging.getLogger(__name__)


class Listener:
    """Serves a site's sessions; a context manager, or ``start`` and ``stop``.

    Attributes:
      port: Where it listens.
    """

    def __init__(
        self,
        address: str,
        own: Identity,
        services: Mapping[str, Service],
        *,
        limits: Limits = _LIMITS,
        record: Callable[[Record], None],
    ) -> None:
        """Takes the port; answers nobody before ``start``.

        Args:
          address: ``host:port``; port 0: any.
          own: Who listens.
          services: By kind.
          limits: The most that this end takes.
          record: Logs openings and refusals; if it raises, nothing is opened.

        Raises: ConfigError, VerificationError: Nobody can listen there, or there is no certificate in force.
        """
        self._reception = Reception(own, services, limits, record)
        streams = 2 * limits.sessions + 4  # a session that was cut may have two for a while; and health
        self._server = grpc.server(
            ThreadPoolExecutor(streams, thread_name_prefix="channel"),
            options=[*transport.options(limits), *transport.SERVER_OPTIONS],
            maximum_concurrent_rpcs=streams,
        )
        self._server.add_generic_rpc_handlers((transport.service(self._stream),))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = self._server.add_secure_port(address, transport.server_credentials(own))
        except RuntimeError:
            raise ConfigError(
                f"nobody can listen on {address}", hint="Is the port taken, or the host another's?"
            ) from None

    def start(self) -> Self:
        """Begins to answer."""
        self._server.start()
        for name in ("", transport.SERVICE):
            self._health.set(name, HealthCheckResponse.SERVING)
        return self

    def stop(self, grace: float = 2.0) -> None:
        """Closes every session, and is over within ``grace`` seconds whatever the peers do."""
        self._health.enter_graceful_shutdown()
        sessions = self._reception.sessions
        for one in sessions:
            one.close(linger=0)
        self._server.stop(grace).wait()
        for one in sessions:
            one.finish()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _stream(self, incoming: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answers one stream; its frames out are what it yields."""
        line = Line()
        if not context.add_callback(line.end):
            return
        first = _first(incoming, context)
        if first is None:
            return
        try:
            answer, session = self._reception.answer(first, transport.leaf(context), line)
        except Exception as error:  # noqa: BLE001 - gRPC would tell the peer what it says
            reason = told(error)
            if reason == FAILED:
                _LOG.exception("an opening failed")
            yield frames.closed(1, 0, reason)
            return
        threading.Thread(target=_read, args=(incoming, session, line), daemon=True, name="channel reader").start()
        yield answer
        yield from line


def _first(incoming: Iterator[bytes], context: grpc.ServicerContext) -> bytes | None:
    """Returns a stream's first frame, or ``None`` if none comes in time."""
    timer = after(OPENING_SECONDS, context.cancel)
    try:
        return next(incoming, None)
    except grpc.RpcError:
        return None
    finally:
        timer.cancel()


def _read(incoming: Iterator[bytes], session: StreamSession, line: Line) -> None:
    """Hands a stream's frames to its session until the stream ends, or is cut."""
    try:
        for frame in incoming:
            session.arrived(line, frame)
    except grpc.RpcError:
        pass  # cut: the session waits for the next stream
    finally:
        session.detach(line)
        line.end()
