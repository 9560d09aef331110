"""Who is let in: every wrong certificate is refused with a plain line, and nothing but the Fleet API is public."""

import asyncio
import base64
import contextlib
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse
from flwr.superlink.routers.fleet.router import router
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from privacy.errors import ConfigError
from server.door import LARGE, SMALL
from server.launcher import Listener, serve, tls_context
from server.superlink import node_id
from tests.privacy.enrolment.issuing import Authority, holder, key
from tests.server.launched import HUB, Federation, Files, Launched, flower, header, launched

KEY = "flwr-public-key"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    with launched(Federation.create(tmp_path_factory.mktemp("hub"))) as running:
        yield running


def post(
    hub: Launched, name: str | None, path: str = "/v1/fleet/pull-messages", number: int = 2, **options: object
) -> httpx.Response:
    """One request, with a certificate and a Flower key, whosever they are."""
    with httpx.Client(verify=hub.federation.context(name)) as client:
        headers = {"content-type": "application/protobuf", KEY: header(number)}
        url = f"https://127.0.0.1:{hub.port}{path}"
        return client.request(str(options.get("method", "POST")), url, headers=headers, content=b"")


def eventually(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """The answer with this status: a new charter is in force within half a second, or more on a busy machine."""
    for _ in range(100):
        if (answer := ask()).status_code == status:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"still {answer.status_code}")


def activate(hub: Launched, name: str, number: int) -> ActivateNodeResponse:
    url, own = f"https://127.0.0.1:{hub.port}", flower(number)
    interceptors = [NodeAuthHttpInterceptor(own, own.public_key())]
    with FleetHttpClient(url, interceptors=interceptors, verify=hub.federation.context(name)) as client:
        request = ActivateNodeRequest(public_key=base64.b64decode(header(number)), heartbeat_interval=30)
        return client.ActivateNode(request)


def refused_line(hub: Launched, known: int) -> str:
    """The next line that the launcher reports."""
    for _ in range(100):
        if len(hub.federation.lines()) > known:
            return hub.federation.lines()[known]
        time.sleep(0.02)
    raise AssertionError("no line was reported")


def test_a_site_of_the_charter_gets_in_under_the_id_of_its_key(hub: Launched) -> None:
    assert activate(hub, "b", 3).node_id == node_id(header(3))


# What is wrong, and what the launcher says of it. All but the last are refused before a byte of HTTP.
WRONG = {
    "no certificate": "peer did not return a certificate",
    "wrong authority": "unable to get local issuer certificate",
    "own root of the same name": "unable to get local issuer certificate",
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
    "the server's own": "unsuitable certificate purpose",
    "other names than a site's": "does not carry exactly the two names",
}


def wrong(federation: Federation, what: str) -> str | None:
    here, site = federation, holder("a")
    match what:
        case "wrong authority":
            other = Authority.of(9, federation="lungs")
            leaf = other.leaf(holder("a", federation="lungs"), key(50))
            Files.write(here.folder, "wrong", leaf, key(50))
        case "own root of the same name":
            here.leaf("wrong", site, 50, authority=9)
        case "expired":
            here.leaf("wrong", site, 51, start=-8, end=-1)
        case "not yet valid":
            here.leaf("wrong", site, 52, start=1)
        case "the server's own":
            here.leaf("wrong", HUB, 53)
        case "other names than a site's":
            leaf = Authority.of().leaf(site, key(54))
            names = x509.SubjectAlternativeName([*leaf.extensions[3].value, x509.DNSName("also.this")])
            Files.write(here.folder, "wrong", Authority.of().resigned(leaf, SubjectAlternativeName=names), key(54))
    return None if what == "no certificate" else "wrong"


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_certificate_is_refused_with_a_plain_line(hub: Launched, what: str) -> None:
    name, known = wrong(hub.federation, what), len(hub.federation.lines())
    with pytest.raises(httpx.TransportError):
        post(hub, name)
    assert WRONG[what] in refused_line(hub, known)


def test_a_name_that_the_charter_does_not_list_is_refused(hub: Launched) -> None:
    hub.federation.leaf("d", holder("d"), 4)
    known = len(hub.federation.lines())
    answer = post(hub, "d", number=4)
    assert (answer.status_code, answer.headers["collegium-refused"]) == (403, "charter")
    assert answer.text == "spiffe://hearts/site/d is not in the charter\n"
    assert answer.text.strip() in refused_line(hub, known)
    assert answer.headers["connection"] == "close"


def test_another_sites_certificate_does_not_go_with_ones_own_flower_key(hub: Launched) -> None:
    answer = post(hub, "b", number=2)
    assert (answer.status_code, answer.headers["collegium-refused"]) == (403, "key")
    with pytest.raises(httpx.HTTPStatusError, match="403"):
        activate(hub, "b", 2)


def test_nor_do_two_flower_keys_at_once(hub: Launched) -> None:
    with hub.connect("a") as tls:
        head = f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n{KEY}: {header(3)}\r\n\r\n"
        tls.sendall(head.encode())
        assert tls.recv(1000).startswith(b"HTTP/1.1 403")


OTHERS = [
    "/v1/control/start-run",
    "/v1/control/list-runs",
    "/v1/runtime/acquire-task",
    "/v1/runtime/pull-task-input",
    "/v1/fleet/register-node",
    "/v1/fleet/unregister-node",
    "/v1/fleet/get-run",
    "/v1/fleet/get-fab",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages?x",
    "/v1/fleet/%70ull-messages",
    "/v1/fleet/../control/list-runs",
    "//v1/fleet/pull-messages",
    "/health",
    "/docs",
    "/openapi.json",
    "/",
]


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_but_the_routes_of_a_site_is_public(hub: Launched, path: str) -> None:
    with hub.connect("a") as tls:  # a client library would tidy the path
        tls.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\ncontent-length: 0\r\n\r\n".encode())
        assert tls.recv(1000).startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_nor_is_another_method(hub: Launched, method: str) -> None:
    assert post(hub, "a", method=method).status_code == 404


def test_there_is_no_older_tls_and_no_session_to_resume(hub: Launched) -> None:
    old = hub.federation.context("a")
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(("127.0.0.1", hub.port)) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname=HUB.dns)
    with hub.connect("a") as tls:
        tls.sendall(f"GET / HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n\r\n".encode())
        assert tls.recv(1000)
        assert tls.version() == "TLSv1.3"
        assert tls.session is None or not tls.session.has_ticket
    folder = hub.federation.folder
    context = tls_context(Listener("127.0.0.1", 0, folder / "hub.crt", folder / "hub.key", folder / "ca.crt"))
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3  # the one curve would do for now


def test_a_revocation_closes_what_is_open_and_refuses_what_comes(hub: Launched) -> None:
    def ask(tls: ssl.SSLSocket) -> bytes:
        tls.sendall(f"POST /v1/fleet/get-run HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n\r\n".encode())
        answer = b""
        while more := tls.recv(1000):  # a refusal closes
            answer += more
        return answer

    context = hub.federation.context("a")
    address = ("127.0.0.1", hub.port)
    with hub.connect("a") as idle, context.wrap_socket(socket.create_connection(address)) as before:
        idle.sendall(f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n\r\n".encode())
        assert b"connection: close" not in idle.recv(1000)  # Flower's answer; the connection may be used again
        assert ask(before).startswith(b"HTTP/1.1 404")
        session = before.session
        hub.federation.charter(revoked=(2,))
        try:
            with contextlib.suppress(ConnectionResetError):
                idle.settimeout(10)
                while idle.recv(1000):
                    pass
            eventually(lambda: post(hub, "a", path="/"), 403)
            again = context.wrap_socket(socket.create_connection(address), session=session)
            with again:
                assert not again.session_reused
                assert b"was revoked by the charter" in ask(again)
            assert post(hub, "a").headers["collegium-refused"] == "charter"
        finally:
            hub.federation.charter()
    eventually(lambda: post(hub, "a", path="/"), 404)


def test_a_site_that_the_charter_drops_is_refused_and_one_that_it_adds_is_known(hub: Launched) -> None:
    hub.federation.leaf("c", holder("c"), 5)
    hub.federation.charter("bc")
    dropped = eventually(lambda: post(hub, "a", path="/"), 403)
    assert dropped.text == "spiffe://hearts/site/a is not in the charter\n"
    assert activate(hub, "c", 5).node_id == node_id(header(5))
    hub.federation.charter()
    assert eventually(lambda: post(hub, "a", path="/"), 404).headers["collegium-refused"] == "route"


AS_NOBODY = """
import os, socket, sys
os.setuid(65534)
with socket.socket(socket.AF_UNIX) as control:
    control.settimeout(5)
    control.connect(sys.argv[1])
    control.sendall(b"POST /v1/control/list-runs HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    print(control.recv(100))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_host_gets_nothing_from_the_socket(hub: Launched) -> None:
    socket_path, folder = hub.federation.socket, hub.federation.socket.parent
    assert stat.S_IMODE(socket_path.stat().st_mode) == 0o600
    command = [sys.executable, "-c", AS_NOBODY, str(socket_path)]
    assert "PermissionError" in subprocess.run(command, capture_output=True, text=True, check=False).stderr
    # And by the kernel's word for who is calling, should somebody have opened folder and socket.
    known = len(hub.federation.lines())
    opened = [path for path in (folder, *folder.parents) if not path.stat().st_mode & stat.S_IXOTH]
    modes = [path.stat().st_mode for path in opened]
    for path in opened:
        path.chmod(0o755)
    socket_path.chmod(0o666)
    try:
        tried = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        socket_path.chmod(0o600)
        for path, mode in zip(opened, modes, strict=True):
            path.chmod(stat.S_IMODE(mode))
    assert "HTTP" not in tried.stdout
    assert "user 65534 may not use the control socket" in refused_line(hub, known)


def test_a_second_launcher_in_the_same_folder_is_refused(hub: Launched) -> None:
    folder = hub.federation.folder
    listener = Listener("127.0.0.1", 0, folder / "hub.crt", folder / "hub.key", folder / "ca.crt")

    async def second() -> None:
        await serve(listener, hub.federation.peers, hub.federation.socket, ready=print, stop=asyncio.Event())

    with pytest.raises(ConfigError, match="another launcher is at work"):
        asyncio.run(second())


def test_a_key_that_others_can_read_is_not_used(hub: Launched) -> None:
    folder = hub.federation.folder
    (folder / "open.key").write_bytes((folder / "hub.key").read_bytes())
    (folder / "open.key").chmod(0o640)
    with pytest.raises(ConfigError, match="open to other users"):
        tls_context(Listener("127.0.0.1", 0, folder / "hub.crt", folder / "open.key", folder / "ca.crt"))


def test_every_route_of_flowers_is_known_here() -> None:
    closed = {f"/v1/fleet/{name}" for name in ("register-node", "unregister-node", "get-run", "get-fab")}
    assert SMALL | LARGE | closed == {getattr(route, "path", "") for route in router.routes}


def test_strangers_that_say_nothing_lock_no_site_out_and_leave_nothing_behind(tmp_path: Path) -> None:
    def until_open(files: Path, most: int) -> None:
        for _ in range(100):
            if len(list(files.iterdir())) <= most:
                return
            time.sleep(0.05)  # less in all than the clock of a handshake
        raise AssertionError(f"{len(list(files.iterdir()))} files are open")

    with launched(Federation.create(tmp_path)) as running:
        address, files = ("127.0.0.1", running.port), Path(f"/proc/{running.process.pid}/fd")
        before = len(list(files.iterdir()))
        with contextlib.ExitStack() as stack:
            for _ in range(150):
                stack.enter_context(socket.create_connection(address))
            assert post(running, "a", path="/").status_code == 404
            until_open(files, before + 64 + 2)
        until_open(files, before)


def test_it_ends_in_time_with_callers_still_there(tmp_path: Path) -> None:
    with launched(Federation.create(tmp_path)) as running, running.connect("a") as tls:
        tls.sendall(f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: x\r\n{KEY}: {header(2)}\r\n".encode())
        started = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        running.process.wait(15)
        assert running.process.returncode == 0
        assert time.monotonic() - started < 10
        assert not running.federation.socket.exists()
