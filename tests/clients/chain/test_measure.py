"""Measuring: what is asked and answered, its bounds, and that it changes nothing that anybody uses."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from clients.chain.measure import (
    ECHO,
    ECHOED,
    KIND,
    MEASURED,
    MOST_RECORDS,
    MOST_REPEATS,
    MOST_SECONDS,
    MeasureService,
    Probe,
    Times,
    measure,
    read_probe,
    read_times,
)
from clients.channel.memory import pair
from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, Opening, RemoteRefusalError, Session
from privacy.errors import FederationError, PrivacyError, RemoteProtocolError, VerificationError
from privacy.secagg.encoding import dumps, loads
from privacy.store.log import Record
from strategies.cuts import Piece
from tests.clients.chain.holders import CNN, MLP, plan_of

PIECES = tuple(stage.piece for stage in plan_of(CNN).stages)
PROBE = Probe(PIECES[1], records=8, repeats=3)


@pytest.fixture
def session() -> Iterator[Session]:
    """An open session with a service that measures."""
    near, far = pair("alba", "brno", Opening(KIND, bytes(16)))
    records: list[Record] = []
    service = MeasureService(CNN, lambda: False, records.append)

    def run() -> None:
        try:
            service.run(far)
        except FederationError as error:
            far.close(str(error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield near
    near.close()
    thread.join(10)


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.start or "inputs")
def test_every_piece_can_be_timed(session: Session, piece: Piece) -> None:
    session.send(Probe(piece, records=8, repeats=3).message())
    times = read_times(session.receive())
    assert [len(each) for each in vars(times).values()] == [3, 3, 3]
    assert all(each > 0 for each in (*times.forward, *times.backward, *times.apply))


def test_without_training_only_the_forward_pass_is_timed() -> None:
    stage = plan_of(CNN, train=False).stages[2]
    times = measure(CNN, Probe(stage.piece, records=2, repeats=4, train=False))
    assert (len(times.forward), times.backward, times.apply) == (4, (), ())


def test_a_slow_piece_is_not_repeated_for_long() -> None:
    now = iter(range(10_000))
    times = measure(CNN, Probe(PIECES[1], records=1, repeats=MOST_REPEATS), clock=lambda: float(next(now)))
    assert set(times.forward) == {1.0}
    assert len(times.forward) < MOST_SECONDS


def test_bytes_come_back_as_they_went(session: Session) -> None:
    there = {"x": np.arange(1000.0, dtype=np.float32)}
    session.send(Message(ECHO, 7, b"what", there))
    back = session.receive()
    assert (back.kind, back.step, back.body) == (ECHOED, 7, b"what")
    np.testing.assert_array_equal(back.tensors["x"], there["x"])


def test_another_model_is_not_measured() -> None:
    with pytest.raises(VerificationError, match="is another one"):
        measure(CNN, Probe(Piece("", "_2", (), "0" * 64), records=1, repeats=1))
    with pytest.raises(FederationError):
        measure(MLP, PROBE)


def test_what_is_out_of_bounds_is_refused(session: Session) -> None:
    body = loads(PROBE.message().body)
    changes: list[dict[str, Any]] = [
        {"records": MOST_RECORDS + 1}, {"records": 0}, {"repeats": MOST_REPEATS + 1}, {"repeats": True},
        {"optimizer": "other"}, {"keys": [1]}, {"train": 1}, {"more": 1}, {"start": b""},
    ]  # fmt: skip
    for change in changes:
        with pytest.raises(RemoteProtocolError):
            read_probe(Message("piece", body=dumps({**body, **change})))
    with pytest.raises(RemoteProtocolError):
        read_probe(Message("other", body=PROBE.message().body))
    session.send(Message("piece", body=dumps({**body, "records": 0})))
    with pytest.raises(RemoteRefusalError, match="out of bounds"):
        session.receive()


def test_an_answer_is_read_as_it_was_sent_or_refused() -> None:
    times = Times((1.5, 0.25), (0.5,), ())
    assert read_times(times.message()) == times
    nothing: dict[str, Any] = {"forward": [], "backward": [], "apply": []}
    bodies: tuple[Any, ...] = ([], {}, nothing, {**nothing, "forward": ["1"]})
    for body in bodies:
        with pytest.raises(RemoteProtocolError):
            read_times(Message(MEASURED, body=dumps(body)))


def test_whom_it_lets_in_is_on_record() -> None:
    records: list[Record] = []
    paused = [False, True]
    service = MeasureService(CNN, lambda: paused.pop(0), records.append)
    assert service.admit("alba", Opening(KIND, bytes(16))) == b""
    with pytest.raises(PrivacyError, match="paused"):
        service.admit("cork", Opening(KIND, bytes(16)))
    assert [(each.content["peer"], each.content["allowed"]) for each in records] == [("alba", True), ("cork", False)]
    near, far = pair("alba", "brno", Opening(KIND, bytes(16)))
    near.close()
    service.run(far)  # returns
    with pytest.raises(ChannelClosedError):
        far.receive()
