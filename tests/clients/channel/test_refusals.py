"""Whoever should not talk does not: a plain line for the one, a log record at the other, and nothing handed out."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from clients.channel import frames, transport
from clients.channel.credentials import Credentials, Identity
from clients.channel.dialler import Dialler, _Target
from clients.channel.listener import Listener
from clients.channel.message import Message
from clients.channel.session import (
    FAILED,
    ChannelClosedError,
    ChannelError,
    Opening,
    RemoteRefusalError,
    Session,
    told,
)
from clients.channel.stream import Line
from privacy.charter.document import Charter
from privacy.enrolment.certificates import fingerprint, new_root, read_certificate
from privacy.errors import (
    ConfigError,
    PrivacyError,
    QuorumError,
    RemoteProtocolError,
    TransportError,
    VerificationError,
)
from privacy.store import site_keys
from privacy.store.log import Record
from tests import federation as people
from tests.clients.channel.ends import QUICK, Handed, asked, identity, issued, keeper, now, signed, until
from tests.federation import NAME, Federation
from tests.integration.real import free_port

STRANGER = "whoever answers has no certificate of this federation for brno"


@dataclass
class Site:
    """A listener of brno's, and what became of it."""

    listener: Listener
    service: Handed = field(default_factory=Handed)
    records: list[Record] = field(default_factory=list)

    def dial(self, own: Identity, peer: str = "brno", kind: str = "talk") -> Session:
        return Dialler(own, limits=QUICK).open(f"127.0.0.1:{self.listener.port}", peer, kind=kind, deadline=5)

    def refuses(self, own: Identity, line: str, kind: str = "talk", *, logged: bool = True) -> None:
        """Checks that a dialler is refused, in one plain line and on record, and comes to no service."""
        with pytest.raises(RemoteRefusalError, match=line) as caught:
            self.dial(own, kind=kind)
        assert len(caught.value.lines()) == 1
        assert not caught.value.retryable
        assert [record.kind for record in self.records] == ["channel-refused"] * logged
        assert all(record.content["reason"] == caught.value.reason for record in self.records)
        assert not self.service.openings
        assert not self.listener._reception.sessions

    def is_refused(self, own: Identity, line: str, peer: str = "brno") -> ChannelError:
        """Checks that a dialler refuses what answers, and that no service gets to see it."""
        with pytest.raises(ChannelError, match=line) as caught:
            self.dial(own, peer)
        assert not isinstance(caught.value, RemoteRefusalError)
        assert len(caught.value.lines()) <= 2
        return caught.value


@contextmanager
def serving(own: Identity) -> Iterator[Site]:
    service, records = Handed(), list[Record]()
    with Listener("127.0.0.1:0", own, {"talk": service}, limits=QUICK, record=records.append) as listener:
        yield Site(listener, service, records)
        service.done.set()


@pytest.fixture
def brno(federation: Federation) -> Iterator[Site]:
    with serving(identity(federation, "brno")) as site:
        yield site


@pytest.fixture
def alba(federation: Federation) -> Identity:
    return identity(federation, "alba")


@pytest.fixture
def copy(federation: Federation, tmp_path: Path) -> Federation:
    return federation.copied(tmp_path / "copy")


@pytest.fixture
def elsewhere(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> Credentials:
    """Of alba, under a root that somebody else made in the federation's name."""
    key, start = site_keys.fresh_key(secrets.token_bytes), datetime.now(UTC) - timedelta(days=9)
    root = new_root(key, NAME, serial=secrets.token_bytes(16), start=start, end=start + timedelta(days=3650))
    monkeypatch.setattr(people, "_authority", lambda: (key, root))
    leaf = federation.certificate("alba").public_bytes(Encoding.PEM)
    monkeypatch.undo()
    return Credentials(root.public_bytes(Encoding.PEM), leaf, identity(federation, "alba").credentials().key)


def serial(own: Identity) -> str:
    return format(read_certificate(own.credentials().certificate).serial_number, "x")


def test_a_listener_under_another_root_is_refused(alba: Identity, brno: Site, elsewhere: Credentials) -> None:
    mine = alba.credentials()
    refused = brno.is_refused(replace(alba, credentials=lambda: replace(mine, root=elsewhere.root)), STRANGER)
    assert not refused.retryable
    assert "root" in refused.hint
    assert not brno.service.openings


def test_a_dialler_under_another_root_is_refused(alba: Identity, brno: Site, elsewhere: Credentials) -> None:
    mine = alba.credentials()
    own = replace(alba, credentials=lambda: replace(elsewhere, root=mine.root))
    assert "certificate" in brno.is_refused(own, "brno does not answer").hint
    assert not brno.service.openings


def test_a_dialler_without_a_certificate_is_refused(
    alba: Identity, brno: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "dialler_credentials", lambda given: grpc.ssl_channel_credentials(given.root))
    assert "certificate" in brno.is_refused(alba, "brno does not answer").hint
    assert not brno.service.openings


def test_another_sites_certificate_is_refused(federation: Federation, alba: Identity, brno: Site) -> None:
    own = replace(alba, credentials=identity(federation, "cork").credentials)
    brno.refuses(own, r"the certificate is that of spiffe://north/site/cork, not of spiffe://north/site/alba")


def test_another_site_that_answers_is_refused(alba: Identity, brno: Site) -> None:
    brno.is_refused(alba, "no certificate of this federation for cork", peer="cork")
    assert not brno.service.openings


def test_a_listener_without_its_identity_key_is_refused(federation: Federation, alba: Identity) -> None:
    thief = replace(identity(federation, "brno"), key=identity(federation, "cork").key)
    with serving(thief) as site:
        site.is_refused(alba, "whoever answers does not hold the identity key of brno")


def test_a_dialler_without_its_identity_key_is_refused(federation: Federation, alba: Identity) -> None:
    thief = replace(alba, key=identity(federation, "cork").key)
    for own in (thief, keeper(federation, "alba")):
        with serving(identity(federation, "brno")) as site:
            site.refuses(own, "whoever dials does not hold the key that version 1 of the charter lists for alba")
            certificate = read_certificate(own.credentials().certificate)
            assert [record.content["certificate"] for record in site.records] == [fingerprint(certificate)]


def test_the_keeper_cannot_pass_on_an_opening_that_it_was_sent(
    federation: Federation, alba: Identity, brno: Site
) -> None:
    first = signed(alba, asked(alba, Opening("talk", bytes(16))))
    for credentials, line in ((issued(federation, "alba"), "does not hold the key"), (alba.credentials(), "")):
        options = transport.dialler_options(QUICK, federation.folders["brno"].holder.dns)
        given, address = transport.dialler_credentials(credentials), f"127.0.0.1:{brno.listener.port}"
        with grpc.secure_channel(address, given, options) as channel:
            call = transport.opened(channel, iter([first]))
            answer = frames.parse(next(call), QUICK.frame_bytes)
            call.cancel()
        assert line in answer.closed.reason
        assert bool(answer.opened.signature) == (not line)
    assert [record.kind for record in brno.records] == ["channel-refused", "channel-opened"]


def test_the_keeper_takes_up_no_session(federation: Federation, alba: Identity, brno: Site) -> None:
    a = brno.dial(alba)
    b = brno.service.sessions.get(timeout=5)
    target = _Target(f"127.0.0.1:{brno.listener.port}", "brno", a.opening)
    with pytest.raises(RemoteRefusalError, match="does not hold the key"):
        Dialler(keeper(federation, "alba"), limits=QUICK)._dial(target, 5.0, 0)
    b.send(Message("still"))
    assert a.receive(5).kind == "still"


def test_whoever_is_let_in_is_on_record_with_the_certificate(alba: Identity, brno: Site) -> None:
    a = brno.dial(alba)
    leaf = fingerprint(read_certificate(alba.credentials().certificate))
    who = {"certificate": leaf, "peer": "alba", "service": "talk", "session": a.id.hex()}
    assert brno.records == [Record("channel-opened", {**who, "resumed": False})]
    target = _Target(f"127.0.0.1:{brno.listener.port}", "brno", a.opening)
    stream, *_ = Dialler(alba, limits=QUICK)._dial(target, 5.0, 0)
    stream.end()
    assert brno.records[1] == Record("channel-opened", {**who, "resumed": True})  # the first one may come back as well


def test_what_cannot_be_put_on_record_is_not_opened(federation: Federation, alba: Identity) -> None:
    def full(_: Record) -> None:
        raise ConfigError("/secret/path: the disk is full")

    service = Handed()
    with Listener(
        "127.0.0.1:0", identity(federation, "brno"), {"talk": service}, limits=QUICK, record=full
    ) as listener:
        with pytest.raises(RemoteRefusalError, match=f"^brno refused: {FAILED}$"):
            Site(listener).dial(alba)
        assert not listener._reception._sessions
    assert service.sessions.empty()


def test_a_peer_that_is_not_in_the_charter_is_not_dialled(alba: Identity, brno: Site) -> None:
    brno.is_refused(alba, "dole is not in version 1 of the charter", peer="dole")


def test_a_dialler_that_is_not_in_the_charter_is_refused(
    alba: Identity, brno: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Charter, "__post_init__", lambda _: None)  # one key for two would be refused there

    def charter() -> Charter:
        return replace(alba.charter(), sites={**alba.charter().sites, "dole": alba.charter().sites["alba"]})

    brno.refuses(replace(alba, site="dole", charter=charter), "dole is not in version 1 of the charter")


def test_a_revoked_dialler_is_refused_at_the_opening(copy: Federation) -> None:
    alba = identity(copy, "alba")
    copy.amend("brno", revoked=[serial(alba)])
    with serving(identity(copy, "brno")) as site:
        site.refuses(alba, "was revoked")


def test_a_revoked_listener_is_refused_at_the_opening(copy: Federation) -> None:
    alba, brno = identity(copy, "alba"), identity(copy, "brno")
    given = brno.credentials()
    copy.amend(revoked=[serial(brno)])
    with pytest.raises(VerificationError, match="revoked"):
        brno.credentials()
    with serving(replace(brno, credentials=lambda: given)) as site:  # it does not care
        site.is_refused(alba, "was revoked")


def test_ends_with_different_charters_do_not_talk(copy: Federation) -> None:
    alba = identity(copy, "alba")
    copy.amend("alba", floors={"cohort": 3, "survivors": 3, "threshold": 3, "cover": 3})
    with serving(identity(copy, "brno")) as site:
        site.refuses(alba, "alba goes by another charter than version 1, which is in force at brno")


def test_a_charter_that_has_ended_opens_nothing(federation: Federation, alba: Identity, brno: Site) -> None:
    late = federation.charter.not_after
    brno.is_refused(replace(alba, now=lambda: late), "version 1 of the charter is not in force now")
    with serving(replace(identity(federation, "brno"), now=lambda: late)) as site:
        site.refuses(alba, "version 1 of the charter is not in force now")


def test_a_service_that_is_not_offered(alba: Identity, brno: Site) -> None:
    brno.refuses(alba, "brno offers no service called stage", kind="stage")


def test_a_services_own_refusal_reaches_the_peer(alba: Identity, brno: Site) -> None:
    brno.service.refusal = PrivacyError("the budget of releases is used up", hint="for the log")
    with pytest.raises(RemoteRefusalError, match=r"^brno refused: the budget of releases is used up$"):
        brno.dial(alba)
    assert not brno.records  # the service logs its own
    assert not brno.listener._reception._sessions


@pytest.mark.parametrize("broken", [KeyError("/secret/path"), ConfigError("/secret/path is not there")])
def test_what_breaks_inside_stays_inside(
    alba: Identity, brno: Site, broken: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    brno.service.refusal = broken
    with pytest.raises(RemoteRefusalError, match=f"^brno refused: {FAILED}$"):
        brno.dial(alba)
    assert "/secret/path" in caplog.text


def test_decisions_are_told_and_nothing_of_the_machine() -> None:
    assert "/" not in FAILED
    decisions = PrivacyError("no"), RemoteProtocolError("no"), VerificationError("no"), ChannelError("no")
    assert {told(error) for error in decisions} == {"no"}
    others = ConfigError("no"), QuorumError("no"), TransportError("no"), OSError("no")
    assert {told(error) for error in others} == {FAILED}


def test_what_breaks_at_one_end_is_not_told_to_a_third(alba: Identity, brno: Site) -> None:
    """What a holder in the middle of a chain would hand on to its owner."""
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(ChannelError, match=r"does not answer: .*127") as caught:
        Dialler(alba, limits=QUICK).open(address, "brno", kind="talk")
    assert told(caught.value) == "brno does not answer"

    def missing() -> Charter:
        raise ConfigError("/secret/path is not there")

    with pytest.raises(ChannelError, match="/secret/path") as caught:
        brno.dial(replace(alba, charter=missing))
    assert told(caught.value) == FAILED


def test_a_charter_that_cannot_be_read_in_mid_stream_is_not_told(federation: Federation, alba: Identity) -> None:
    charters = [federation.charter]

    def charter() -> Charter:
        if not charters:
            raise ConfigError("/secret/path cannot be read")
        return charters[0]

    with serving(replace(identity(federation, "brno"), charter=charter)) as site:
        a = site.dial(alba)
        b = site.service.sessions.get(timeout=5)
        charters.clear()
        with pytest.raises(ChannelClosedError, match="/secret/path") as caught:
            b.send(Message("x"))
        assert told(caught.value) == FAILED
        with pytest.raises(RemoteRefusalError, match=f"^brno refused: {FAILED}$"):
            a.receive(5)


def test_a_service_that_breaks_down_says_no_more(
    federation: Federation, alba: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    errors = {"bug": KeyError("/bug"), "file": ConfigError("/file"), "refusal": PrivacyError("plain words")}

    class Broken(Handed):
        def run(self, session: Session) -> None:
            raise errors[session.receive().kind]

    with Listener("127.0.0.1:0", identity(federation, "brno"), {"talk": Broken()}, record=print) as listener:
        for kind, line in (("bug", FAILED), ("file", FAILED), ("refusal", "plain words")):
            session = Site(listener).dial(alba)
            session.send(Message(kind))
            with pytest.raises(RemoteRefusalError, match=line):
                session.receive(5)
    assert "/bug" in caplog.text
    assert "/file" in caplog.text


@pytest.mark.parametrize("where", ["alba", "brno"])
def test_whoever_is_revoked_in_mid_stream_is_refused_at_the_next_message(copy: Federation, where: str) -> None:
    alba, brno = identity(copy, "alba"), identity(copy, "brno")
    with serving(brno) as site:
        a = site.dial(alba)
        b = site.service.sessions.get(timeout=5)
        a.send(Message("x"))
        b.receive(5)
        mine, other, revoked = (a, b, brno) if where == "alba" else (b, a, alba)
        other.send(Message("x"))
        until(lambda: bool(mine._inbox))  # type: ignore[attr-defined]
        copy.amend(where, revoked=[serial(revoked)])
        with pytest.raises(ChannelClosedError, match="was revoked"):
            mine.receive(5)
        with pytest.raises(ChannelClosedError, match="was revoked"):
            mine.send(Message("x"))
        with pytest.raises(RemoteRefusalError, match="was revoked"):
            other.receive(5)
        refused = ["channel-refused"] if where == "brno" else []
        assert [record.kind for record in site.records] == ["channel-opened", *refused]


CHANGES: dict[str, Callable[[Charter], Charter]] = {
    "is not in version 1": lambda charter: replace(
        charter, sites={name: site for name, site in charter.sites.items() if name != "alba"}, officers=charter.officers
    ),
    "lists another key for alba": lambda charter: replace(
        charter, sites={**charter.sites, "alba": replace(charter.sites["alba"], identity=bytes(32))}
    ),
    "gives no host name for alba": lambda charter: replace(
        charter, sites={**charter.sites, "alba": replace(charter.sites["alba"], dns=None)}
    ),
}


@pytest.mark.parametrize("line", CHANGES)
def test_a_peer_that_the_charter_has_changed_is_refused_at_the_next_message(
    federation: Federation, alba: Identity, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Charter, "__post_init__", lambda _: None)  # its own rules would refuse such a charter first
    charters = [federation.charter]
    with serving(replace(identity(federation, "brno"), charter=lambda: charters[-1])) as site:
        a = site.dial(alba)
        b = site.service.sessions.get(timeout=5)
        a.send(Message("x"))
        until(lambda: bool(b._inbox))  # type: ignore[attr-defined]
        charters.append(CHANGES[line](federation.charter))
        with pytest.raises(ChannelClosedError, match=line):
            b.receive(5)


def test_a_certificate_that_ends_in_mid_stream_ends_the_session(federation: Federation, alba: Identity) -> None:
    times = [now()]
    with serving(replace(identity(federation, "brno"), now=lambda: times[-1])) as site:
        a = site.dial(alba)
        b = site.service.sessions.get(timeout=5)
        a.send(Message("x"))
        leaf = x509.load_pem_x509_certificate(alba.credentials().certificate)
        times.append(min(leaf.not_valid_after_utc, federation.charter.not_after) + timedelta(seconds=1))
        with pytest.raises(ChannelClosedError, match=r"not in force"):
            b.receive(5)


def test_a_certificate_that_ends_before_the_charter_ends_the_session(federation: Federation, alba: Identity) -> None:
    end = read_certificate(alba.credentials().certificate).not_valid_after_utc
    longer, times = replace(federation.charter, not_after=end + timedelta(days=9)), [now()]
    with serving(replace(identity(federation, "brno"), now=lambda: times[-1], charter=lambda: longer)) as site:
        a = site.dial(alba)
        b = site.service.sessions.get(timeout=5)
        a.send(Message("x"))
        times.append(end + timedelta(seconds=1))
        with pytest.raises(ChannelClosedError, match="certificate"):
            b.receive(5)


def test_an_opening_that_was_meant_for_another_is_refused(alba: Identity, brno: Site) -> None:
    first = signed(alba, asked(alba, Opening("talk", bytes(16)), listener="cork"))
    with pytest.raises(VerificationError, match="this is brno, not cork"):
        brno.listener._reception.answer(first, alba.credentials().certificate, Line())
    assert [record.kind for record in brno.records] == ["channel-refused"]
    assert not brno.service.openings


def test_a_servers_folder_has_no_identity_on_the_channel(federation: Federation) -> None:
    with pytest.raises(ConfigError, match="only sites talk"):
        Identity.of_folder(federation.hub, now)


def test_secrets_do_not_show(alba: Identity) -> None:
    assert "PRIVATE" not in repr(alba.credentials())
    assert "PRIVATE" not in repr(alba)
