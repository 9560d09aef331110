"""Two servers behind TLS 1.3 that ask for certificates: Flower's own SuperLink app, and one that follows a script."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import SHUT_RDWR, create_server, socket
from typing import Any

import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import NOOP_FLWR_AID
from flwr.supercore.constant import NOOP_FEDERATION_ID
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from clients.connection import tls_context
from clients.fleet import PART_BYTES, Fleet
from privacy.enrolment.bundle import flower_key
from privacy.enrolment.certificates import Holder, Role, issue_leaf, key_from, new_request, new_root, seed_bytes
from server.superlink import fleet_app, register
from strategies.messages import RECORD

NOW = datetime.now(UTC)
SERVER = Holder("fed", "coordinator", "server.fed.internal", Role.SERVER)
SITE = Holder("fed", "a", "a.fed.internal")
CAP = 10_000_000
FLOWER_KEY = key_from(bytes(range(seed_bytes(ec.SECP384R1()))), ec.SECP384R1())


def key(number: int) -> ec.EllipticCurvePrivateKey:
    curve = ec.SECP256R1()
    return key_from(bytes([number] * seed_bytes(curve)), curve)


@dataclass(frozen=True)
class Authority:
    """A root and what it issued, as files in a folder."""

    folder: Path
    number: int = 1

    def make(self) -> "Authority":
        start, end = NOW - timedelta(days=100), NOW + timedelta(days=100)
        root = new_root(key(self.number), "fed", serial=bytes([self.number] * 16), start=start, end=end)
        (self.folder / "root.crt").write_bytes(root.public_bytes(Encoding.PEM))
        self.leaf("server", SERVER)
        self.leaf("site", SITE)
        return self

    def leaf(self, name: str, holder: Holder, *, end: timedelta = timedelta(days=30), serial: int = 0) -> None:
        """Writes a certificate and its key; one that has ended if ``end`` is negative."""
        from cryptography import x509  # noqa: PLC0415

        own = key(self.number + 1 + len(name))
        root = x509.load_pem_x509_certificate((self.folder / "root.crt").read_bytes())
        certificate = issue_leaf(
            new_request(own, holder),
            holder,
            root=root,
            root_key=key(self.number),
            serial=serial.to_bytes(16, "big") if serial else name.ljust(16).encode()[:16],
            start=NOW - timedelta(days=90),
            end=NOW + end,
        )
        (self.folder / f"{name}.crt").write_bytes(certificate.public_bytes(Encoding.PEM))
        pem = own.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (self.folder / f"{name}.key").write_bytes(pem)

    def client(self, name: str = "site", **changes: Any) -> ssl.SSLContext:
        options: dict[str, Any] = {"server": SERVER, "now": lambda: datetime.now(UTC), **changes}
        certificate, own = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        return tls_context(root=self.folder / "root.crt", certificate=certificate, key=own, **options)

    def server(self, name: str = "server") -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
        context.num_tickets = 0
        context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        context.load_verify_locations(self.folder / "root.crt")
        return context

    def fleet(self, port: int, *, cap: int = CAP, **changes: Any) -> Fleet:
        context = self.client(**changes)
        return Fleet(f"https://127.0.0.1:{port}", context, FLOWER_KEY, server_name=SERVER.dns, cap=cap)


@dataclass
class Call:
    """One request as a scripted server sees it, and the ways to answer it."""

    link: ssl.SSLSocket
    path: str
    headers: Mapping[str, str]
    body: bytes
    sent: int = 0

    def send(self, data: bytes) -> None:
        self.link.sendall(data)
        self.sent += len(data)

    def answer(self, status: int = 200, body: bytes = b"", **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} x", f"content-length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode() + body)


@dataclass
class Scripted:
    """Answers each request by a function; ``calls`` are the paths that were asked for."""

    port: int
    calls: list[str] = field(default_factory=list)


@contextmanager
def scripted(context: ssl.SSLContext | None, script: Callable[[Call], None]) -> Iterator[Scripted]:
    """Runs a server; without a context it closes every connection inside the TLS handshake."""
    listener = create_server(("127.0.0.1", 0))
    state, links = Scripted(listener.getsockname()[1]), set[socket]()

    def serve(link: socket) -> None:
        with suppress(OSError, ValueError), link:
            if context is None:
                link.recv(1)
                return
            with context.wrap_socket(link, server_side=True) as secure:
                links.add(secure)
                while (call := _request(secure)) is not None:
                    state.calls.append(call.path.removeprefix("/v1/fleet/"))
                    script(call)

    def accept() -> None:
        with suppress(OSError):
            while True:
                link, _ = listener.accept()
                links.add(link)
                threading.Thread(target=serve, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield state
    finally:
        listener.close()
        for link in list(links):
            with suppress(OSError):
                link.shutdown(SHUT_RDWR)


def _request(link: ssl.SSLSocket) -> Call | None:
    head = b""
    while b"\r\n\r\n" not in head:
        data = link.recv(65536)
        if not data:
            return None
        head += data
    head, _, body = head.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += link.recv(65536)
    return Call(link, first.split()[1], headers, body)


def a_question(node: int = 7, run: int = 5, payload: bytes = b"question", kind: str = "train.round") -> Message:
    """A question as Flower's grid makes it, content and all; in parts where it is large."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run, 1, 1
    parts = {
        f"{RECORD}.{start // PART_BYTES}": payload[start : start + PART_BYTES]
        for start in range(0, len(payload), PART_BYTES)
    }
    parts = {RECORD: payload[:PART_BYTES], **{name: part for name, part in parts.items() if name != f"{RECORD}.0"}}
    content = RecordDict({name: ConfigRecord({name: part}) for name, part in parts.items()})
    message = Message(content, dst_node_id=node, message_type=kind, group_id="7", ttl=60)
    message.metadata.__dict__["_message_id"] = message.object_id
    return message


@dataclass
class Flower:
    """Flower's SuperLink in a thread, with one run; ``kill`` loses everything but the port."""

    authority: Authority
    port: int = 0
    node: int = 0
    run: int = 0
    known: bool = True
    _server: uvicorn.Server | None = None
    _thread: threading.Thread | None = None

    def start(self) -> "Flower":
        self.app = fleet_app()
        self.state = self.app.state.linkstate_factory.state()
        self.node = register(self.app, flower_key(FLOWER_KEY.public_key()))
        self.begin()
        folder = self.authority.folder
        config = uvicorn.Config(
            self.app,
            lifespan="off",
            ws="none",
            log_level="critical",
            ssl_certfile=folder / "server.crt",
            ssl_keyfile=folder / "server.key",
        )
        config.load()
        config.ssl = self.authority.server()
        listener = create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
        self._thread.start()
        return self

    def kill(self) -> None:
        if self._server is not None and self._thread is not None:
            self._server.should_exit = self._server.force_exit = True
            self._thread.join(20)

    def begin(self) -> None:
        """Opens a run, as a driver would."""
        self.run = self.state.create_run(
            None, None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, "flwr-serverapp"
        )
        task = self.state.get_run_info(run_ids=[self.run])[0].primary_task_id
        self.state.claim_task(task)
        self.state.activate_task(task)
        self._task = task

    def finish(self) -> None:
        self.state.finish_task(self._task, "completed", "")

    @property
    def online(self) -> bool:
        return self.node in self.state.get_nodes(self.run)

    def ask(self, kind: str, payload: bytes, *, parts: bool = True) -> str:
        """Sends the node a message as Flower's grid does; its objects too, if ``parts``."""
        message = a_question(self.node, self.run, payload, kind)
        session = self.state.start_session(self.run)
        head, tree = remove_content_from_message(message), get_object_tree(message)
        stored, _ = self.state.store_message_and_object_tree(head, tree, session)
        assert stored
        self._late = (session, get_all_nested_objects(message))
        if parts:
            self.deliver()
        return message.object_id

    def deliver(self) -> None:
        session, objects = self._late
        for object_id, part in objects.items():
            assert self.state.store_object(self.run, session, object_id, part.deflate())

    def reply(self, question: str) -> Message | None:
        """The reply to a question, if its head is here; waits for its parts."""
        for head in self.state.get_message_res({question}, self.run):
            if head.has_error():
                failed: Message = head
                return failed
            contents: dict[str, bytes] = {}
            waiting = [head.metadata.message_id]
            while waiting:
                object_id = waiting.pop()
                while not (content := self.state.get_object(self.run, object_id)):
                    time.sleep(0.01)
                contents[object_id] = content
                waiting += filter(None, content.split(b"\0")[0].decode().split(" ")[1].split(","))
            found = inflate_object_from_contents(head.metadata.message_id, contents)
            assert isinstance(found, Message)
            return found
        return None
