"""What both ends set in gRPC, and what its statuses mean to people."""

import re
from collections.abc import Callable, Iterator
from typing import Protocol

import grpc

from clients.channel.credentials import Credentials, Identity
from clients.channel.frames import plain
from clients.channel.limits import HEAD_BYTES, Limits
from clients.channel.session import ChannelError
from privacy.errors import FederationError

SERVICE = "collegium.channel.v1.Channel"
SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),  # else a second process could take the port as well
    # How often a peer may ping; by default a quiet session's pings would cut it after a while.
    ("grpc.http2.min_ping_interval_without_data_ms", 100),
]

_STRANGER = re.compile("CERTIFICATE_VERIFY_FAILED|Hostname Verification Check failed")
_FATAL = {grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}


def options(limits: Limits) -> list[tuple[str, int]]:
    """Returns the options of either end: sizes, and pings that find a dead line."""
    pause = round(limits.keepalive * 1000)
    return [
        ("grpc.max_receive_message_length", limits.frame_bytes + HEAD_BYTES),
        ("grpc.max_send_message_length", limits.frame_bytes + HEAD_BYTES),
        ("grpc.max_metadata_size", 8192),
        ("grpc.keepalive_time_ms", pause),
        ("grpc.keepalive_timeout_ms", pause),
        ("grpc.http2.ping_timeout_ms", pause),  # a minute by default, whatever the line above says
        ("grpc.http2.max_pings_without_data", 0),
    ]


def dialler_options(limits: Limits, name: str) -> list[tuple[str, int | str]]:
    """Returns the options of a dialler: ``name`` is the one that the listener's certificate must carry."""
    return [
        *options(limits),
        ("grpc.ssl_target_name_override", name),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", 0),
    ]


def dialler_credentials(given: Credentials) -> grpc.ChannelCredentials:
    """Returns what a dialler shows and believes."""
    return grpc.ssl_channel_credentials(given.root, given.key, given.certificate)


def server_credentials(own: Identity) -> grpc.ServerCredentials:
    """Returns what a listener shows and believes: at every connection the newest, always with a client certificate.

    Raises: ConfigError, VerificationError: There is none in force now.
    """
    given = _configuration(own.credentials())

    def newest() -> grpc.ServerCertificateConfiguration:
        try:
            return _configuration(own.credentials())
        except FederationError:
            return given  # none is in force: diallers refuse this one

    return grpc.dynamic_ssl_server_credentials(given, newest, require_client_authentication=True)


class Call(Protocol):
    """A stream as gRPC gives it to a dialler: an iterator of frames that raises ``grpc.RpcError``."""

    def __iter__(self) -> Iterator[bytes]: ...
    def __next__(self) -> bytes: ...
    def cancel(self) -> bool:
        """Breaks it off."""

    def code(self) -> grpc.StatusCode:
        """Returns how it ended."""


def opened(channel: grpc.Channel, frames: Iterator[bytes]) -> Call:
    """Opens a stream; frames are bytes to gRPC."""
    return channel.stream_stream(f"/{SERVICE}/Open", _as_it_is, _as_it_is)(frames)


def service(stream: Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]) -> grpc.GenericRpcHandler:
    """Returns the one method that a listener has besides health."""
    method = grpc.stream_stream_rpc_method_handler(stream, _as_it_is, _as_it_is)
    return grpc.method_handlers_generic_handler(SERVICE, {"Open": method})


def leaf(context: grpc.ServicerContext) -> bytes:
    """Returns the certificate that a dialler has shown, PEM; TLS lets nobody in without."""
    (pem,) = context.auth_context()["x509_pem_cert"]
    return bytes(pem)


def unanswered(error: grpc.RpcError, peer: str) -> ChannelError:
    """Says in one plain line why a stream to ``peer`` broke off."""
    details = plain(error.details() or "")
    if _STRANGER.search(details):
        return ChannelError(
            f"whoever answers has no certificate of this federation for {peer}",
            retryable=False,
            hint="Compare the address with the one that the other site gave, and the root with its fingerprint.",
        )
    return ChannelError(
        f"{peer} does not answer: {details}",
        retryable=error.code() not in _FATAL,
        told=f"{peer} does not answer",  # the rest has addresses
        hint="Does its service run there, and is this site's certificate in force and under the same root?",
    )


def _as_it_is(frame: bytes) -> bytes:
    return frame


def _configuration(given: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(given.key, given.certificate)], given.root)
