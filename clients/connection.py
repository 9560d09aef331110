"""HTTPS from a site to the one server that the charter names: pinned, timed and capped; nothing of Flower is in here.

Whoever answers at the server's address is believed as little as possible. The connection is TLS 1.3 to one certificate
holder, whatever host was dialled, and that is checked before a byte is sent. Replies are read as a stream under a cap
and under one clock for the whole call. No redirect, proxy or packed reply is followed.

Everything is a ``FleetError``, after which trying again can help, but ``FleetRefusedError``: the charter in force at
the server does not list this site's certificate. The server's door says so by status 403 with the header
``collegium-refused: charter``; TLS alerts cannot say it, for in TLS 1.3 they may be lost with the connection.
"""

import re
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import httpx

from privacy.enrolment.certificates import Holder, Usage, check_leaf, read_certificate
from privacy.errors import ConfigError, RemoteProtocolError, TransportError, VerificationError

REFUSED_HEADER = "collegium-refused"
NOT_IN_CHARTER = "charter"

_ASK_AGAIN = frozenset({0, 408, 425, 429, 502, 503, 504})
_CLOCK = threading.local()


class FleetError(TransportError):
    """A call that brought no answer of use; the connection, or another one, may do better.

    Attributes:
      status: The HTTP status; 0 where there was none.
    """

    def __init__(self, message: str, *, status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status

    @property
    def passing(self) -> bool:
        """Whether the same call is worth repeating as it is."""
        return self.status in _ASK_AGAIN


class FleetRefusedError(TransportError):
    """The charter at the server does not list this site's certificate: trying again cannot help."""

    def __init__(self) -> None:
        super().__init__(
            "the charter in force at the server does not list this site's certificate",
            retryable=False,
            hint="Ask the coordinator; after the next charter version, or with a renewed certificate, start again.",
        )


class TimedSocket(ssl.SSLSocket):
    """A TLS socket on which a call's clock runs: a peer that sends a byte now and then gains nothing."""

    def settimeout(self, value: float | None) -> None:
        """Sets the time-out of the next operation, but no later than the end of the call this thread is in."""
        end = getattr(_CLOCK, "end", None)
        if end is not None:
            left = end - time.monotonic()
            if left <= 0:
                raise TimeoutError("the call took too long")
            value = left if value is None else min(value, left)
        super().settimeout(value)


def tls_context(
    *,
    root: Path,
    certificate: Path,
    key: Path,
    server: Holder,
    revoked: Callable[[], Collection[int]] = frozenset,
    now: Callable[[], datetime],
) -> ssl.SSLContext:
    """Builds what a site opens connections with: its own certificate, and one peer that it accepts.

    Args:
      root: The federation's root certificate, PEM; public.
      certificate: The site's leaf, PEM; public.
      key: The site's TLS key, PEM. Secret; whoever reads the folder has checked its mode.
      server: Whom the charter names; the peer's leaf must be that holder's, for use as a server.
      revoked: Serial numbers that the charter in force takes back; asked at every connection.
      now: The time, with a zone; asked at every connection.

    Raises: ConfigError: The files are not a root, a certificate and its key.
    """
    try:
        pinned = read_certificate(root.read_bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cafile=root)
        context.load_cert_chain(certificate, key)
    except OSError as error:
        raise ConfigError(f"{certificate} and {key} cannot be used for TLS: {_words(error)}") from error

    class Pinned(TimedSocket):
        def do_handshake(self, block: bool = False) -> None:
            super().do_handshake(block)
            try:
                leaf = read_certificate(self.getpeercert(binary_form=True) or b"")
                check_leaf(leaf, pinned, now=now(), holder=server, usage=Usage.SERVER, revoked=revoked())
            except (ConfigError, VerificationError) as error:
                raise ssl.SSLCertVerificationError(f"the server's certificate is not accepted: {error}") from None

    context.sslsocket_class = Pinned
    return context


class Connection:
    """Connections to one server; threads may share it.

    Args:
      address: ``https://host:port``.
      context: From ``tls_context``.
      server_name: The DNS name that the server's certificate must carry, whatever host ``address`` names.

    Raises:
      ConfigError: ``address`` is not one.
      ValueError: A context that would accept less than it should.
    """

    def __init__(self, address: str, context: ssl.SSLContext, *, server_name: str) -> None:
        checks = context.check_hostname and context.verify_mode is ssl.CERT_REQUIRED
        modern = context.minimum_version is ssl.TLSVersion.TLSv1_3
        if not (checks and modern and issubclass(context.sslsocket_class, TimedSocket)):
            raise ValueError("a connection needs a context from tls_context")
        if not re.fullmatch(r"https://[^/\s@?#]+:[0-9]{1,5}", address):
            raise ConfigError(f"{address!r} is not a server's address", hint="Write https://host:port.")
        self._address, self._extensions = address, {"sni_hostname": server_name}
        agent = {"user-agent": "collegium"}  # and not which version of which library
        self._client = httpx.Client(verify=context, headers=agent, follow_redirects=False, trust_env=False)
        self._lock, self._calls, self._closed = threading.Lock(), 0, False

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, cap: int, limit: float) -> bytes:
        """Makes one call.

        Args:
          path: Beginning with a slash.
          body: What leaves.
          headers: What leaves with it.
          cap: Bytes that the reply may have.
          limit: Seconds from the call's first byte to its last.

        Returns: The reply's body; the status was 200.

        Raises:
          FleetError: No answer, or another status.
          FleetRefusedError: The charter does not list this site's certificate.
          RemoteProtocolError: A reply that is packed or larger than ``cap``; no more than that was read.
        """
        try:
            with (
                self._counted(),
                _within(limit),
                self._client.stream(
                    "POST",
                    self._address + path,
                    content=body,
                    headers={**headers, "accept-encoding": "identity"},
                    extensions=self._extensions,
                    timeout=limit,
                ) as response,
            ):
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response)
                return _read(response, cap)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unanswered(error) from error

    def close(self) -> None:
        """Takes no further calls; those that other threads are in come to their end, then the connections close."""
        with self._lock:
            self._closed = True
            if not self._calls:
                self._client.close()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Counts the calls under way: a socket closed under a thread that reads it may be another's by then."""
        with self._lock:
            if self._closed:
                raise FleetError("the connection was closed")
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if self._closed and not self._calls:
                    self._client.close()


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Runs this thread's clock: sockets give up when it ends."""
    _CLOCK.end = time.monotonic() + seconds
    try:
        yield
    finally:
        _CLOCK.end = None


def _read(response: httpx.Response, cap: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise RemoteProtocolError("the server sent a packed reply", phase="reply")
    data = bytearray()
    for chunk in response.iter_raw():
        if len(data) + len(chunk) > cap:
            raise RemoteProtocolError(f"the server sent more than {cap} bytes", phase="reply")
        data += chunk
    return bytes(data)


def _refusal(response: httpx.Response) -> TransportError:
    """Says what a status other than 200 means. Its body is not read."""
    status, reason = response.status_code, response.headers.get(REFUSED_HEADER, "")
    if status == httpx.codes.FORBIDDEN and reason == NOT_IN_CHARTER:
        return FleetRefusedError()
    words = {
        401: ("does not accept this site's signature of the time", "Is this machine's clock right?"),
        412: ("says that this site is connected already", "Does another agent run with the same keys?"),
        429: ("is busy", ""),
        503: ("is busy", ""),
    }
    text, hint = words.get(status, ("refuses" if response.is_client_error else "cannot answer", ""))
    said = f", {reason}" if re.fullmatch(r"[a-z-]{1,32}", reason) else ""
    return FleetError(f"the server {text} (status {status}{said})", status=status, hint=hint)


def _unanswered(error: Exception) -> FleetError:
    words = _words(error)
    if "alert" in words:
        return FleetError(
            f"the server does not accept this site's certificate: {words}",
            hint="Has it expired? A renewed one is used as soon as it is installed.",
        )
    return FleetError(f"the server does not answer: {words}")


def _words(error: Exception) -> str:
    """One printable line of what went wrong, without OpenSSL's file names."""
    text = re.sub(r"\[SSL[^\]]*\] |\[Errno -?\d+\] |\(_ssl\.c:\d+\)", "", str(error)) or type(error).__name__
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
