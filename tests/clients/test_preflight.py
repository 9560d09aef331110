"""What a site is told before a run: each thing that would stop it, by itself, and nothing when all is well."""

import json
import secrets
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from clients import preflight
from clients.preflight import Finding, State, check, server_clock
from privacy.store import joining, site_keys
from privacy.store.key_files import write_new
from privacy.store.site_folder import SiteFolder
from tests.privacy.charter import example
from tests.privacy.enrolment.issuing import DAY, NOW
from tests.privacy.store.joined import SERVER, SITE_TOML, Federation, table

NAMES = [
    "keys",
    "charter",
    "certificate",
    "application",
    "study",
    "policy",
    "budget of hearts",
    "data of hearts",
    "disk",
]


@pytest.fixture
def north(tmp_path: Path) -> Federation:
    made = Federation(tmp_path)
    made.join()
    return made


def found(north: Federation, what: str, *, now: datetime = NOW) -> list[tuple[State, str]]:
    findings = check(north.folders["alba"].path, now=now)
    others = [one for one in findings if not one.what.startswith(what) and one.state is State.FAILED]
    assert not others
    return [(one.state, one.why) for one in findings if one.what.startswith(what)]


def test_all_is_well(north: Federation) -> None:
    findings = check(north.folders["alba"].path, now=NOW)
    assert [one.what for one in findings] == NAMES
    assert [one for one in findings if one.state is not State.OK] == []
    (data,) = (one.why for one in findings if one.what == "data of hearts")
    assert data == "39 records train, 21 are kept to test on, all in range"


def spoil(name: str, old: str, new: str) -> Callable[[Path], None]:
    def act(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return act


@pytest.mark.parametrize(
    ("act", "what", "why"),
    [
        (lambda folder: (folder / "tls.key").chmod(0o644), "", "open to other users"),
        (lambda folder: (folder / "flower.key").chmod(0o640), "keys", "open to other users"),
        (lambda folder: (folder / "ledger.db").chmod(0o640), "modes", "ledger.db is open to other users (0640)"),
        (lambda folder: (folder / "log.db").chmod(0o604), "modes", "log.db is open to other users (0604)"),
        (spoil("study.toml", "rounds = 3", "rounds = 4"), "study", "not one that the charter lists"),
        (spoil("site.cedar", "principal", "someone"), "policy", ""),
        (spoil("table.csv", ",no,", ",maybe,"), "data of hearts", "not a category"),
        (lambda folder: (folder / "table.csv").unlink(), "data of hearts", "no such file"),
    ],
)
def test_what_would_stop_a_run(north: Federation, act: Callable[[Path], None], what: str, why: str) -> None:
    folder = north.folders["alba"].path
    act(folder)
    failed = [one for one in check(folder, now=NOW) if one.state is State.FAILED]
    assert failed
    assert all(why in one.why for one in failed)
    assert {one.what for one in failed} == {what} or not what


def test_dates_are_told_in_time(north: Federation) -> None:
    assert found(north, "charter", now=NOW + 29 * DAY)[0][0] is State.OK
    assert found(north, "charter", now=NOW + 31 * DAY)[0][0] is State.WARNING
    assert found(north, "charter", now=NOW + 61 * DAY)[0][0] is State.FAILED
    ended = check(north.folders["alba"].path, now=NOW + 91 * DAY)
    assert {one.what for one in ended if one.state is State.FAILED} == {"charter", "certificate"}
    early = check(north.folders["alba"].path, now=NOW - 2 * DAY)
    assert "charter" in {one.what for one in early if one.state is State.FAILED}
    assert found(north, "certificate", now=NOW + 59 * DAY)[0][0] is State.OK
    assert [
        one.state for one in check(north.folders["alba"].path, now=NOW + 60.5 * DAY) if one.what == "certificate"
    ] == [State.WARNING]


def test_another_application_is_told(tmp_path: Path) -> None:
    north = Federation(tmp_path)
    other = north.charter(application="ab" * 32)
    north.join("alba", None, other)
    ((state, why),) = found(north, "application")
    assert (state, "abababababababab is approved" in why) == (State.FAILED, True)


def test_a_charter_without_this_study_s_site_is_told(tmp_path: Path) -> None:
    north = Federation(tmp_path)
    north.study = type(north.study)(**{**vars(north.study), "sites": north.study.sites[1:]})
    folder = north.folders["alba"]
    text = 'sites = ["brno", "cork", "dole"]'
    papers = north.papers("alba")
    study = papers.study.decode().replace('sites = ["alba", "brno", "cork", "dole"]', text).encode()
    north.join("alba", type(papers)(**{**vars(papers), "study": study}))
    assert "does not name alba" in next(one.why for one in check(folder.path, now=NOW) if one.what == "study")


def test_budgets_that_differ_or_are_absent_are_told(north: Federation) -> None:
    folder = north.folders["alba"]
    both = {name: {"purposes": ["training"], "epsilon": "3", "delta": "0.001"} for name in ("hearts", "lungs")}
    joining.add_charter(folder, north.charter(version=2, previous=folder.charter.digest, assets=both).encode())
    with (folder.path / "site.toml").open("a") as file:
        file.write(SITE_TOML[SITE_TOML.index("[asset") :].replace("hearts", "lungs"))
    budgets = found(north, "budget")
    assert [state for state, _ in budgets] == [State.WARNING, State.FAILED]
    assert budgets[0][1].startswith("epsilon 2 at delta 0.001")


def test_a_charter_with_another_key_of_this_site_is_told(north: Federation) -> None:
    folder = north.folders["alba"]
    sites = [
        {**one, "identity": example.spelt("new")} if one["id"] == "alba" else one
        for one in folder.charter.body["sites"]
    ]
    second = north.charter(version=2, previous=folder.charter.digest, sites=sites)
    write_new(folder.path / "charter-2.json", second.encode())
    assert found(north, "charter") == [(State.FAILED, "the charter has another identity key for alba than this folder")]


def test_the_opt_out_list_is_told(north: Federation) -> None:
    folder = north.folders["alba"].path
    with (folder / "site.toml").open("a") as file:
        file.write('opt_out = "out.txt"\npatient = "id"\n')
    (folder / "out.txt").write_text("p3\np4\nmisspelt\n")
    (folder / "table.csv").write_text(table().replace("\np1,", "\np2,"))
    data = found(north, "data")
    assert "2 rows left out by the opt-out list" in data[0][1]
    assert [state for state, _ in data] == [State.OK, State.WARNING, State.WARNING]
    assert "1 entries of the opt-out list are nobody in the table" in data[1][1]
    assert "2 rows belong to patients with several" in data[2][1]


def test_a_pause_and_a_full_disk_are_told(north: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    (north.folders["alba"].path / "paused").touch()
    assert found(north, "paused") == [(State.WARNING, "the emergency stop is on: nothing is answered")]
    for free, state in ((2**20, State.FAILED), (2**29, State.WARNING), (2**33, State.OK)):
        usage = type("Usage", (), {"free": free})
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _, usage=usage: usage)  # type: ignore[attr-defined]
        assert found(north, "disk")[0][0] is state


def test_a_folder_that_is_no_sites_is_told(north: Federation, tmp_path: Path) -> None:
    assert check(tmp_path / "absent", now=NOW)[0].what == "folder"
    north.join(SERVER)
    (finding,) = check(north.folders[SERVER].path, now=NOW)
    assert (finding.state, "coordinator" in finding.why) == (State.FAILED, True)
    # enrolled and not joined: every check says so, none crashes
    assert all(
        one.state is State.FAILED for one in check(tmp_path / "brno", now=NOW) if one.what not in {"disk", "keys"}
    )


class _Answer(socketserver.BaseRequestHandler):
    date = b""

    def handle(self) -> None:
        self.request.recv(4096)
        self.request.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n" + self.date + b"\r\n")


@pytest.fixture
def hub(north: Federation) -> Iterator[int]:
    """The coordinator's end of TLS with its own certificate, which asks for the site's; yields its port."""
    folder = north.join(SERVER)
    paths = folder.tls(NOW)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(paths.root))
    context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_3, ssl.CERT_REQUIRED
    context.load_cert_chain(paths.certificate, paths.key)
    with socketserver.TCPServer(("127.0.0.1", 0), _Answer) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def at_port(north: Federation, port: int) -> SiteFolder:
    folder = north.folders["alba"]
    spoil("site.toml", ":9443", f":{port}")(folder.path)
    return folder


@pytest.mark.parametrize(
    ("off", "state"), [(0, State.OK), (59, State.OK), (-59, State.OK), (362, State.FAILED), (-362, State.FAILED)]
)
def test_the_clocks_are_compared(north: Federation, hub: int, off: int, state: State) -> None:
    folder = at_port(north, hub)
    told = NOW + timedelta(seconds=off)
    _Answer.date = f"Date: {told:%a, %d %b %Y %H:%M:%S} GMT\r\n".encode()
    assert server_clock(folder, NOW) == told
    findings = [one for one in check(folder.path, now=NOW, server_clock=server_clock) if one.what == "clock"]
    assert [one.state for one in findings] == [state]


def test_a_clock_that_nobody_tells_is_not_compared(north: Federation, hub: int) -> None:
    folder = at_port(north, hub)
    for date in (b"", b"Date: yesterday\r\n"):
        _Answer.date = date
        assert server_clock(folder, NOW) is None
    spoil("site.toml", f":{hub}", ":1")(folder.path)
    findings = [one for one in check(folder.path, now=NOW, server_clock=server_clock) if one.what == "clock"]
    assert findings == [Finding(State.WARNING, "clock", "not compared: https://127.0.0.1:1 does not answer")]


def test_another_host_name_than_the_charters_is_not_asked(north: Federation, hub: int) -> None:
    _Answer.date = b"Date: Mon, 01 Mar 2027 12:00:00 GMT\r\n"
    folder = at_port(north, hub)
    server = {**north.charter().charter.body["server"], "dns": "other.example"}
    joining.add_charter(folder, north.charter(version=2, previous=folder.charter.digest, server=server).encode())
    assert server_clock(folder, NOW) is None


def test_the_command(north: Federation) -> None:
    app, folder = typer.Typer(), north.folders["alba"].path
    app.command("check")(preflight.check_command)
    ran = CliRunner().invoke(app, [str(folder), "--offline"])
    assert (ran.exit_code, ran.output.count("\n")) == (0, len(NAMES))
    site_keys.renew(folder, "alba", "north", secrets.token_bytes)
    (folder / "tls-2.key").chmod(0o644)
    ran = CliRunner().invoke(app, [str(folder), "--offline", "--json"])
    told = json.loads(ran.output)
    assert ran.exit_code == 1
    assert {one["what"] for one in told["findings"] if one["state"] == "failed"} == {"keys"}
