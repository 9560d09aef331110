"""The page in a real browser: at three widths and on paper, and that it asks the network for nothing.

Needs Chromium. Pictures are left in pytest's temporary folder, to be looked at.
"""

import html
import re
import shutil
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from privacy.audit.html import page
from tests.privacy.audit import masked, measured, promises, sample

pytestmark = pytest.mark.soak

WIDTHS = (360, 800, 1280)
OWN = ("google.com", "googleapis.com", "gvt1.com")
"""Whom the browser calls on its own account, whatever it shows; no page of ours names them."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-extensions", "--no-first-run", "--no-default-browser-check", "--hide-scrollbars",
    "--disable-default-apps", "--disable-domain-reliability", "--no-pings",
    "--disable-features=OptimizationHints,MediaRouter,NetworkTimeServiceQuerying",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed, so that nobody can look at the page")
    return found


def pages() -> dict[str, bytes]:
    with_picture = sample.audited_predicate()
    with_picture["claims"][-1] = measured.inversion_claim(image=True)
    return {
        "audited": page.render(sample.audited()),
        "picture": page.render(sample.forged(with_picture)),
        "promised": page.render(promises.signed()),
        "plain": page.render(sample.signed(masked.predicate())),
    }


@pytest.fixture(scope="module")
def drawn() -> dict[str, bytes]:
    return pages()


class Recorder:
    """A proxy that lets nothing through, and notes who asked for what."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.asked: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection, suppress(OSError):
                connection.settimeout(5)
                self.asked.append(connection.recv(4096).partition(b"\r\n")[0])

    def close(self) -> None:
        # Closing does not wake up a thread in accept() everywhere; shutting down does.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)


@contextmanager
def recorded() -> Iterator[Recorder]:
    recorder = Recorder()
    try:
        yield recorder
    finally:
        recorder.close()


def run(browser: str, folder: Path, document: bytes, *options: str) -> tuple[str, list[bytes]]:
    """Opens a document and returns what the browser printed, and what was asked of the network for the document."""
    assert not any(name.encode() in document for name in OWN)
    (folder / "page.html").write_bytes(document)
    with recorded() as recorder:
        command = [
            browser,
            *QUIET,
            f"--user-data-dir={folder / 'profile'}",
            f"--proxy-server=127.0.0.1:{recorder.port}",
            "--proxy-bypass-list=<-loopback>",
            *options,
            (folder / "page.html").as_uri(),
        ]
        done = subprocess.run(command, capture_output=True, check=True, timeout=120)
        asked = [line for line in recorder.asked if not host_of(line).endswith(OWN)]
        return done.stdout.decode(), asked


def host_of(request: bytes) -> str:
    """Whom a request to a proxy is for: CONNECT host:port, or the URL of anything else."""
    words = request.decode(errors="replace").split()
    target = words[1] if len(words) > 1 else ""
    return (urlsplit(target) if "://" in target else urlsplit(f"//{target}")).hostname or ""


def framed(document: bytes, width: int) -> bytes:
    """The document in a frame that is narrower than a browser's window can be, and its width when laid out."""
    inside = html.escape(document.decode(), quote=True)
    return f"""<!DOCTYPE html><meta charset="utf-8"><body style="margin:0"><p id="found"></p>
<iframe id="page" style="border:0;width:{width}px;height:900px" srcdoc="{inside}"></iframe>
<script>document.getElementById("page").onload = event => {{
  const root = event.target.contentDocument.documentElement;
  document.getElementById("found").textContent = `laid out: ${{root.scrollWidth}} by ${{root.scrollHeight}}`;
}}</script>""".encode()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["audited", "picture", "promised", "plain"])
def test_it_fits_every_width(browser: str, drawn: dict[str, bytes], tmp_path: Path, name: str, width: int) -> None:
    printed, asked = run(browser, tmp_path, framed(drawn[name], width), "--dump-dom", "--window-size=1400,1000")
    found = re.search(r"laid out: (\d+) by (\d+)", printed)
    assert found is not None
    assert int(found[1]) <= width
    assert int(found[2]) > 2000
    assert asked == []


@pytest.mark.parametrize("width", [500, 800, 1280])  # a window is never narrower than 500
def test_it_is_drawn(browser: str, drawn: dict[str, bytes], tmp_path: Path, width: int) -> None:
    picture = tmp_path / f"audited-{width}.png"
    _, asked = run(browser, tmp_path, drawn["audited"], f"--screenshot={picture}", f"--window-size={width},6000")
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, 6000)
    assert len(data) > 100_000  # a blank picture has next to nothing
    assert asked == []


def test_it_prints(browser: str, drawn: dict[str, bytes], tmp_path: Path) -> None:
    paper = tmp_path / "audited.pdf"
    _, asked = run(browser, tmp_path, drawn["audited"], "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    data = paper.read_bytes()
    assert data.startswith(b"%PDF-")
    assert 5 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 20
    assert asked == []
    if (reader := shutil.which("pdftotext")) is None:
        return
    first = subprocess.run([reader, "-l", "1", str(paper), "-"], capture_output=True, check=True).stdout.decode()
    for question in ("Who is protected", "From whom", "How strongly", "What is not", "How to check"):
        assert question in first
    whole = subprocess.run([reader, str(paper), "-"], capture_output=True, check=True).stdout.decode()
    assert "trestbps" in whole  # of a table that is folded away on the screen


IMAGE = b'<img src="http://collegium.example/pixel.png"></body>'


def test_the_recorder_sees_a_request_and_the_page_s_policy_stops_it(
    browser: str, drawn: dict[str, bytes], tmp_path: Path
) -> None:
    asking = drawn["plain"].replace(b"</body>", IMAGE)
    _, asked = run(browser, tmp_path, asking, "--dump-dom")
    assert asked == []
    lax = asking.replace(b'http-equiv="Content-Security-Policy"', b'name="none"')
    assert lax != asking
    _, asked = run(browser, tmp_path, lax, "--dump-dom")
    assert any(b"collegium.example" in request for request in asked)
