"""What ``simulations/bench/channel.py`` measures the channel against: either end of lines that send everything back.

TLS is mutual TLS 1.3 on loopback with the certificates of the benchmark's federation; torch RPC is in the clear, as it
comes.
"""

import os
import queue
import socket as sockets
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
import numpy.typing as npt
import torch
from torch.distributed import rpc

from privacy.store.site_folder import SiteFolder

Array = npt.NDArray[np.float32]

METHOD = "/collegium.bench.Echo/Open"
WINDOW = 8
"""Messages under way at once where throughput is measured."""
MESSAGE_CAP = 2**24  # bytes; gRPC's own is 4 MiB
_PATIENCE = 60.0  # seconds


class Line(Protocol):
    """One conversation with an end that sends everything back, in order."""

    def send(self, tensor: Array) -> None:
        """Sends one tensor; returns before it has arrived."""

    def receive(self) -> Array:
        """Returns the next one that came back."""

    def close(self) -> None:
        """Ends the conversation."""


@dataclass(frozen=True)
class Keys:
    """Of one end, PEM; ``key`` is secret.

    Attributes:
      dns: Name in the certificate.
    """

    dns: str
    root: bytes
    certificate: bytes
    key: bytes
    files: tuple[Path, Path, Path]

    @classmethod
    def of(cls, folder: SiteFolder) -> "Keys":
        """Reads the newest pair of a folder."""
        tls = folder.tls(datetime.now(UTC))
        files = (tls.root, tls.certificate, tls.key)
        root, certificate, key = (path.read_bytes() for path in files)
        return cls(folder.holder.dns, root, certificate, key, files)


def one_thread() -> None:
    """Keeps torch to one thread, and what its processes say to one another to loopback."""
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ["TP_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)


@dataclass
class Echo:
    """Bare gRPC: one bidirectional stream of bytes, nothing read or checked."""

    port: int
    mine: Keys
    dns: str
    _requests: "queue.SimpleQueue[bytes | None]" = field(default_factory=queue.SimpleQueue)

    def __post_init__(self) -> None:
        options = [*_OPTIONS, ("grpc.ssl_target_name_override", self.dns)]
        secret = grpc.ssl_channel_credentials(self.mine.root, self.mine.key, self.mine.certificate)
        self._channel = grpc.secure_channel(f"127.0.0.1:{self.port}", secret, options)
        grpc.channel_ready_future(self._channel).result(_PATIENCE)
        asked: Any = iter(self._requests.get, None)
        self._answers: Iterator[bytes] = self._channel.stream_stream(METHOD)(asked)

    def send(self, tensor: Array) -> None:
        """Sends the tensor's bytes."""
        self._requests.put(tensor.tobytes())

    def receive(self) -> Array:
        """Returns what came back."""
        return np.frombuffer(next(self._answers), np.float32)

    def close(self) -> None:
        """Ends the stream."""
        self._requests.put(None)
        self._channel.close()


def answer_echo(port: int, own: Keys, ready: Callable[[], None]) -> None:
    """Sends back what comes by gRPC, until the process is ended."""

    def echoed(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    *service, method = METHOD.strip("/").split("/")
    handler = grpc.method_handlers_generic_handler(service[0], {method: grpc.stream_stream_rpc_method_handler(echoed)})
    server = grpc.server(ThreadPoolExecutor(2), [handler], options=_OPTIONS)
    secret = grpc.ssl_server_credentials([(own.key, own.certificate)], own.root, require_client_auth=True)
    server.add_secure_port(f"127.0.0.1:{port}", secret)
    server.start()
    ready()
    server.wait_for_termination()


_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_CAP),
    ("grpc.max_send_message_length", MESSAGE_CAP),
    ("grpc.so_reuseport", 0),
]


@dataclass
class Socket:
    """A mutual-TLS 1.3 socket: eight bytes of length, then the tensor."""

    port: int
    mine: Keys
    dns: str

    def __post_init__(self) -> None:
        context = _tls(ssl.PROTOCOL_TLS_CLIENT, self.mine)
        raw = sockets.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)
        raw.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._line = context.wrap_socket(raw, server_hostname=self.dns)

    def send(self, tensor: Array) -> None:
        """Sends the length and the tensor."""
        _put(self._line, tensor.data.cast("B"))

    def receive(self) -> Array:
        """Returns what came back."""
        return np.frombuffer(_take(self._line), np.float32)

    def close(self) -> None:
        """Closes the socket."""
        self._line.close()


def answer_socket(port: int, own: Keys, ready: Callable[[], None]) -> None:
    """Sends back what comes over the first connection, until that ends."""
    context = _tls(ssl.PROTOCOL_TLS_SERVER, own)
    context.verify_mode = ssl.CERT_REQUIRED
    with sockets.create_server(("127.0.0.1", port)) as listening:
        ready()
        raw = listening.accept()[0]
        raw.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        with context.wrap_socket(raw, server_side=True) as line:
            while data := _take(line):
                _put(line, memoryview(data))


def _tls(protocol: int, keys: Keys) -> ssl.SSLContext:
    root, certificate, key = keys.files
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(root)
    context.load_cert_chain(certificate, key)
    return context


def _put(line: sockets.socket, data: memoryview) -> None:
    line.sendall(len(data).to_bytes(8, "little"))
    line.sendall(data)


def _take(line: sockets.socket) -> bytearray:
    """Returns the next message; empty at the end."""
    head = _exactly(line, 8)
    return _exactly(line, int.from_bytes(head, "little")) if head else head


def _exactly(line: sockets.socket, size: int) -> bytearray:
    data, got = bytearray(size), 0
    while got < size:
        count = line.recv_into(memoryview(data)[got:])
        if not count:
            return bytearray()
        got += count
    return data


@dataclass
class TorchRpc:
    """torch.distributed.rpc with its defaults, in the clear."""

    port: int
    _came: "list[Any]" = field(default_factory=list)

    def __post_init__(self) -> None:
        _join_rpc(self.port, "asker", 0)

    def send(self, tensor: Array) -> None:
        """Calls the other end; TensorPipe takes it from there."""
        self._came.append(rpc.rpc_async("answerer", rpc_echo, (torch.from_numpy(tensor),)))

    def receive(self) -> Array:
        """Waits for the oldest call."""
        came: Array = self._came.pop(0).wait().numpy()
        return came

    def close(self) -> None:
        """Leaves; both ends wait for one another."""
        rpc.shutdown()


def rpc_echo(tensor: Any) -> Any:
    """Returns what it is given."""
    return tensor


def answer_rpc(port: int, ready: Callable[[], None]) -> None:
    """Answers calls until the asker leaves."""
    ready()
    _join_rpc(port, "answerer", 1)
    rpc.shutdown()


def _join_rpc(port: int, name: str, rank: int) -> None:
    where = rpc.TensorPipeRpcBackendOptions(init_method=f"tcp://127.0.0.1:{port}", rpc_timeout=_PATIENCE)
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=where)  # type: ignore[no-untyped-call] # torch
