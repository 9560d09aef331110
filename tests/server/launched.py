"""A launcher in a process of its own, with a small federation, for tests that knock at its doors."""

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from privacy.enrolment.bundle import flower_key
from privacy.enrolment.certificates import Holder, Role
from privacy.store.site_keys import to_pem
from server.admission import Limits, Peers
from server.launcher import Listener, serve
from tests.privacy.enrolment.issuing import DAY, NOW, Authority, holder, key

HUB = holder("hub", Role.SERVER)


def flower(number: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(number + 1000, ec.SECP384R1())


def header(number: int) -> str:
    return flower_key(flower(number).public_key())


@dataclass(frozen=True)
class Files:
    """A certificate and its key."""

    certificate: Path
    key: Path

    @classmethod
    def write(cls, folder: Path, name: str, leaf: x509.Certificate, its_key: ec.EllipticCurvePrivateKey) -> "Files":
        files = cls(folder / f"{name}.crt", folder / f"{name}.key")
        for path, data in ((files.certificate, leaf.public_bytes(Encoding.PEM)), (files.key, to_pem(its_key))):
            path.write_bytes(data)
            path.chmod(0o600)
        return files


@dataclass(frozen=True)
class Federation:
    """Files of a federation in a folder: root, hub, and sites ``a`` and ``b`` in the charter."""

    folder: Path

    @classmethod
    def create(cls, folder: Path, **limits: float) -> "Federation":
        folder.chmod(0o700)
        (folder / "control").mkdir(mode=0o700)
        (folder / "limits.json").write_text(json.dumps(limits))
        here = cls(folder)
        (folder / "ca.crt").write_bytes(Authority.of().root.public_bytes(Encoding.PEM))
        here.leaf("hub", HUB, 1)
        for number, site in enumerate("ab", start=2):
            here.leaf(site, holder(site), number)
        here.charter()
        return here

    def leaf(
        self, name: str, whom: Holder, number: int, *, authority: int = 1, start: int = -1, end: int = 90
    ) -> Files:
        leaf = Authority.of(authority).leaf(
            whom, key(100 + number), start=NOW + start * DAY, end=NOW + end * DAY, serial=7000 + 2 * number
        )
        return Files.write(self.folder, name, leaf, key(100 + number))

    def charter(self, sites: str = "ab", *, revoked: tuple[int, ...] = ()) -> None:
        """Puts a charter in force; serials are odd by construction."""
        keys = {holder(site).uri: header("ab?c".index(site) + 2) for site in sites}
        serials = [format(7000 + 2 * number | 1, "x") for number in revoked]
        draft = self.folder / "draft"
        draft.write_text(json.dumps({"keys": keys, "revoked": serials}))
        draft.rename(self.folder / "peers.json")

    def peers(self) -> Peers:
        found = json.loads((self.folder / "peers.json").read_text())
        return Peers("hearts", found["keys"], frozenset(found["revoked"]))

    @property
    def socket(self) -> Path:
        return self.folder / "control" / "flower.sock"

    def context(self, name: str | None = "a") -> ssl.SSLContext:
        """A client's context; none for a stranger."""
        context = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
        context.check_hostname = False
        if name is not None:
            context.load_cert_chain(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        return context

    def lines(self) -> list[str]:
        """What the launcher reported so far."""
        path = self.folder / "lines"
        return path.read_text().splitlines() if path.exists() else []


@dataclass(frozen=True)
class Launched:
    """A launcher at work."""

    federation: Federation
    process: "subprocess.Popen[str]"
    port: int

    def connect(self, name: str | None = "a") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        return self.federation.context(name).wrap_socket(plain, server_hostname=HUB.dns)

    def peak(self) -> int:
        """Peak resident memory since ``forget_peak``, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def forget_peak(self) -> int:
        """Forgets the peak; returns what is resident now."""
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return self.peak()


@contextmanager
def launched(federation: Federation) -> Iterator[Launched]:
    command = [sys.executable, "-m", "tests.server.launched", str(federation.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Launched(federation, process, int(process.stdout.readline()))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


async def _main(federation: Federation) -> None:
    stop, folder = asyncio.Event(), federation.folder
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listener = Listener("127.0.0.1", 0, folder / "hub.crt", folder / "hub.key", folder / "ca.crt")
    limits = replace(Limits(), **json.loads((folder / "limits.json").read_text()))

    def report(line: str) -> None:
        with (folder / "lines").open("a") as file:
            file.write(line + "\n")

    await serve(
        listener,
        federation.peers,
        federation.socket,
        ready=lambda port: print(port, flush=True),  # noqa: T201 -- the test reads it
        stop=stop,
        report=report,
        limits=limits,
    )


if __name__ == "__main__":
    asyncio.run(_main(Federation(Path(sys.argv[1]))))
