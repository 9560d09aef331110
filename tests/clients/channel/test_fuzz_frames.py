"""No frame of a stranger crashes what reads it, moves a session where it must not be, or takes more than its bound."""

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import pytest

from clients.channel import tensors, transport
from clients.channel.dialler import Dialler
from clients.channel.flow import Flow
from clients.channel.limits import Limits
from clients.channel.message import Message
from clients.channel.session import Opening
from privacy.store.log import Record
from tests.clients.channel.ends import Echo, asked, identity, listening, signed
from tests.clients.channel.fuzz_forms import FRAME
from tests.clients.channel.fuzz_targets import BOUND, FRAMES, LIMITS, targets
from tests.federation import Federation
from tests.privacy.secagg.fuzz_engine import FoundError, Fuzzing
from tests.privacy.secagg.fuzz_mutate import mutate
from tests.privacy.secagg.simulation.schedule import source

ROOT = Path(__file__).parents[3]
FRAMES_IN_ALL = 200_000
GROWTH = 2 * LIMITS.window * BOUND * LIMITS.sessions // 2**10
"""KiB that the process may grow by while it reads them: what a listener's sessions may keep, as ``Limits`` declares."""


@pytest.fixture
def fuzzing(federation: Federation) -> Iterator[Fuzzing]:
    run = Fuzzing(targets(federation))
    yield run
    run.close()


def test_what_is_changed_is_what_is_read(fuzzing: Fuzzing) -> None:
    for target in fuzzing.targets:
        for seed in target.seeds:
            assert target.form.dumps(target.form.loads(seed)) == seed


def test_every_target_takes_the_frame_that_it_waits_for(fuzzing: Fuzzing) -> None:
    for data in fuzzing.seeds():
        fuzzing.execute(data)
    assert set(fuzzing.totals) == {"accepted"}


def test_two_thousand_frames(fuzzing: Fuzzing) -> None:
    fuzzing.plain(2_000, seed=8)
    assert len(fuzzing.reached) == len(fuzzing.targets)
    # Frames that are all refused, or all believed, would prove nothing.
    assert fuzzing.totals["accepted"] > 200
    assert fuzzing.totals["refused"] > 1_000
    assert fuzzing.most <= BOUND


@pytest.mark.soak
@pytest.mark.timeout(4 * 3600)
def test_two_hundred_thousand_frames(capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "tests.clients.channel.fuzz_targets", str(FRAMES_IN_ALL)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
    with capsys.disabled():
        print(done.stdout, flush=True)  # noqa: T201 - what the run found
    assert f"{FRAMES_IN_ALL:,} messages to 6 of 6 targets" in done.stdout
    most, grown = (int(number) for number in re.findall(r"^(\d+) bytes, (\d+) KiB$", done.stdout, re.MULTILINE)[0])
    assert most <= BOUND
    assert grown <= GROWTH


def room_first(patch: pytest.MonkeyPatch) -> None:
    """The reader makes room for what a header says before it looks what is there."""

    def within(data: memoryview, place: int, size: int) -> int:
        bytearray(min(size, 2**26))
        return right(data, place, size)

    right = tensors._within
    patch.setattr(tensors, "_within", within)


def unchecked(patch: pytest.MonkeyPatch) -> None:
    """The reader believes what a header says of sizes."""
    patch.setattr(tensors, "_within", lambda _data, place, size: place + size)


def any_name(patch: pytest.MonkeyPatch) -> None:
    """Text that is not UTF-8 is forgotten."""
    patch.setattr(tensors, "_name", lambda label: str(label, "utf-8"))


def any_spelling(patch: pytest.MonkeyPatch) -> None:
    """What lies between records is not looked at."""
    patch.setattr(tensors, "_skip", lambda _data, place: place + tensors._padding(place))


def any_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    """A peer may acknowledge what it was never sent."""
    patch.setattr(Flow, "heard", lambda self, acknowledged: [self._kept.popleft() for _ in range(acknowledged)])


@pytest.mark.parametrize("planted", [room_first, unchecked, any_name, any_spelling, any_acknowledgement])
def test_planted_faults_are_found(
    planted: Callable[[pytest.MonkeyPatch], None], fuzzing: Fuzzing, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch)
    with pytest.raises(FoundError) as found:
        fuzzing.plain(20_000, seed=1)
    assert json.loads(str(found.value))["hex"]


def streamed(federation: Federation, port: int, frames: list[bytes]) -> None:
    """Sends raw frames on a stream of its own, past our own end, and waits until it is over."""
    options = transport.dialler_options(LIMITS, federation.folders["brno"].holder.dns)
    given = transport.dialler_credentials(identity(federation, "alba").credentials())
    with grpc.secure_channel(f"127.0.0.1:{port}", given, options) as channel, suppress(grpc.RpcError):
        list(transport.opened(channel, iter(frames)))


@pytest.mark.parametrize("count", [60, pytest.param(5_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_a_listener_outlives_all_of_them(federation: Federation, count: int) -> None:
    records, alba = list[Record](), identity(federation, "alba")
    limits = Limits(frame_bytes=LIMITS.frame_bytes, window=4, sessions=1024, resume=1.0, idle=5.0)
    with listening(federation, "brno", {"talk": Echo()}, records, limits) as listener:
        for number in range(count):
            random = source(number, b"stream")
            opening = Opening("talk", secrets.token_bytes(16))
            first = signed(alba, asked(alba, opening, limits=limits, nonce=secrets.token_bytes(32)))
            changed = mutate(random.choice([first, *FRAMES]), FRAMES, random, FRAME)
            streamed(federation, listener.port, [changed] if number % 4 == 0 else [first, changed])
        dialler = Dialler(alba, limits=limits)
        session = dialler.open(f"127.0.0.1:{listener.port}", "brno", kind="talk")
        session.send(Message("x", tensors={"x": np.arange(3)}))
        assert session.receive(5).tensors["x"].tolist() == [0, 1, 2]
        dialler.close()
    refused = [record.content["reason"] for record in records if record.kind == "channel-refused"]
    assert refused
    assert all(reason.isprintable() for reason in refused)
