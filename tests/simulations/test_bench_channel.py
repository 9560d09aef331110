"""The bench of the channel, without its processes: arithmetic, file, table, and what it asks of a line."""

import json
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clients.channel.memory import pair
from clients.channel.session import ChannelClosedError, Opening, Session
from privacy.errors import LocalProtocolError
from simulations.bench import channel as bench
from simulations.bench.channel import Row
from simulations.bench.channel_peers import WINDOW, Array
from simulations.bench.channel_sides import SessionLine, answer_echoes
from simulations.bench.channel_split import Back, Front, answer_session, over_session

ROW = Row("round trip", "TLS socket", 100_000, "x", [1.0, 9.0, 2.0], [1.0, 9.0, 2.0], [1.0, 1.0, 1.0], most=2.0)
SECONDS = {"channel": [0.003, 0.004, 0.009], "gRPC echo": [0.002, 0.002, 0.010]}


def test_a_figure_is_the_median_of_each_turns_own() -> None:
    assert bench.added(SECONDS, 100_000, 0.5).turns == pytest.approx([1.0, 2.0, -1.0])
    assert bench.added(SECONDS, 100_000, 0.5).value == pytest.approx(1.0)
    assert bench.times("", "gRPC echo", 100_000, SECONDS).value == pytest.approx(1.5)
    assert bench.rate("", "gRPC echo", 100_000, SECONDS).value == pytest.approx(1 / 1.5)
    other = {"TLS socket": [0.001] * 3, **SECONDS}
    assert bench.times("", "TLS socket", 100_000, other, of="gRPC echo").turns == pytest.approx([2.0, 2.0, 10.0])


@pytest.mark.parametrize(
    ("row", "holds"),
    [
        (ROW, True),
        (Row(**{**vars(ROW), "most": 1.99}), False),
        (Row(**{**vars(ROW), "most": None, "least": 2.0}), True),
        (Row(**{**vars(ROW), "most": None, "least": 2.01}), False),
        (Row(**{**vars(ROW), "most": None}), None),
    ],
)
def test_a_row_holds_up_to_its_bar(row: Row, *, holds: bool | None) -> None:
    assert row.holds is holds


def test_the_file_has_what_was_measured_and_a_quick_one_is_held_against_no_bar() -> None:
    found = json.loads(json.dumps(bench.document([ROW], 1.5, [0.5, 1.0], quick=False)))
    assert (found["schema"], found["quick"], found["compute_ms"]) == ("collegium/bench-channel/v1", False, 1.5)
    assert found["machine"]["load"] == [0.5, 1.0]
    assert found["rows"] == [{**vars(ROW), "value": 2.0, "holds": True}]
    assert bench.document([ROW], 1.5, [], quick=True)["rows"][0]["holds"] is None


def test_the_table_tells_figure_spread_and_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    bench.show([ROW], 1.5, quick=False)
    said = capsys.readouterr().out
    for text in ("round trip", "TLS socket", "2.00 x", "1.00 - 9.00", "<= 2, holds", "2.00 : 1.00", "1.50 ms"):
        assert text in said


def test_a_flower_step_is_its_messages_and_the_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "flower_messages", lambda _parties, size, count: {"stock": [size / 1e5] * count})
    split = Row("steps", "gloo", 1, "x", [1.0], [4.0, 2.0, 3.0], [1.0])
    (row,) = bench.beside_flower(None, split, 2.0, bench.Sizes(turns=1, blocks=1, bursts=1, messages=2))  # type: ignore[arg-type] # nobody looks at it
    assert (row.against, row.ours, row.holds) == ("stock", [3.0] * 2, None)
    assert row.other == pytest.approx([1026.0] * 2)
    assert row.value == pytest.approx(342.0)


class Mirror:
    """A line that keeps count of what is under way."""

    def __init__(self, *, honest: bool = True) -> None:
        self.most, self.sent = 0, 0
        self._under_way: deque[Array] = deque()
        self._honest = honest

    def send(self, tensor: Array) -> None:
        self.sent += 1
        self._under_way.append(tensor if self._honest else tensor[:-1])
        self.most = max(self.most, len(self._under_way))

    def receive(self) -> Array:
        return self._under_way.popleft()

    def close(self) -> None:
        self._under_way.clear()


def test_a_stream_keeps_the_window_full_and_a_trip_has_one_under_way() -> None:
    stream, trips = Mirror(), Mirror()
    bench.stream_seconds({"a": stream}, 400, 2)
    bench.trip_seconds({"a": trips}, 400, 2)
    assert (stream.sent, stream.most) == (2 * bench.BURST, WINDOW)
    assert (trips.sent, trips.most) == (20, 1)


def test_a_line_that_sends_back_something_else_is_found() -> None:
    for measure in (bench.stream_seconds, bench.trip_seconds):
        with pytest.raises(LocalProtocolError, match="b did not send back"):
            measure({"a": Mirror(), "b": Mirror(honest=False)}, 400, 1)


def test_everybody_is_first_once() -> None:
    assert [[*bench.turned({"a": 1, "b": 2, "c": 3}, turn)] for turn in range(3)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
    ]


@pytest.mark.soak
def test_everything_runs_between_processes_and_the_file_has_every_row(tmp_path: Path) -> None:
    out = tmp_path / "folder" / "bench.json"
    command = [sys.executable, "-m", "simulations.bench.channel", "--quick", "--json", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text(encoding="utf-8"))
    rows = {(row["what"], row["against"], row["bytes"]) for row in found["rows"]}
    for size in (100_000, 1_000_000):
        assert {("added to a round trip", "gRPC echo", size), ("throughput, 8 under way", "gRPC echo", size)} < rows
        assert {("round trip", against, size) for against in ("gRPC echo", "TLS socket", "torch RPC")} < rows
        assert ("the bare echo's round trip", "TLS socket", size) in rows
    assert ("steps of a split MLP", "gloo", 102_400) in rows
    assert found["compute_ms"] > 0


@pytest.fixture
def ends() -> Iterator[tuple[Session, Session]]:
    both = pair("here", "there", Opening("bench", bytes(16)))
    yield both
    both[0].close()


def answering(run: threading.Thread) -> threading.Thread:
    run.start()
    return run


def test_a_session_is_a_line(ends: tuple[Session, Session]) -> None:
    here, there = ends

    def run() -> None:
        with pytest.raises(ChannelClosedError):
            answer_echoes(there)

    answerer = answering(threading.Thread(target=run))
    assert bench.stream_seconds({"a": SessionLine(here)}, 400, 1)["a"] > 0
    here.close()
    answerer.join(10)
    assert not answerer.is_alive()


def test_the_split_model_steps_over_a_session_as_it_does_in_one_process(ends: tuple[Session, Session]) -> None:
    here, there = ends

    def run() -> None:
        with pytest.raises(ChannelClosedError):
            answer_session(there)

    split, alone, back = Front(), Front(), Back()
    answerer = answering(threading.Thread(target=run))  # now: its back is drawn from torch's one source, too
    fronts = {"split": (split, over_session(here)), "alone": (alone, back.answer)}
    assert bench.step_seconds(fronts, 1).keys() == fronts.keys()
    assert all(np.array_equal(*both) for both in zip(split.parameters(), alone.parameters(), strict=True))
    assert not np.array_equal(split.parameters()[0], Front().parameters()[0])
    here.close()
    answerer.join(10)
