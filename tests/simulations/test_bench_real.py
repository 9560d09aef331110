"""The bench of real sites, without its processes: arithmetic, file, orders, echoes; and that no process outlives it."""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.serverapp import Grid

from privacy.errors import ConfigError, TransportError
from simulations.bench import real, real_sides
from simulations.bench.real import Row
from simulations.bench.real_app import (
    Orders,
    bytes_in,
    bytes_record,
    carried_out,
    check_echoes,
    client,
    listening,
    questions,
)
from simulations.bench.real_parties import banks_of, hidden_for
from simulations.bench.real_sides import Processes, check_rounds, ended_by_signals
from simulations.local_grid import LocalGrid

ROW = Row("one phase", 5, 5.0, [[1.0, 2.0, 9.0], [1.0, 1.0, 3.0]], [[8.0, 12.0], [9.0, 21.0]], [3.0], (0.5, 1.5))


def test_a_ratio_is_of_medians_over_all_turns_and_says_how_the_turns_differ() -> None:
    assert ROW.ratio == 10.5 / 1.5
    assert ROW.by_turn == [10.0 / 2.0, 15.0 / 1.0]


@pytest.mark.parametrize(("bar", "holds"), [(7.0, True), (7.01, False), (None, None)])
def test_a_row_holds_from_its_bar_on(bar: float | None, *, holds: bool | None) -> None:
    assert Row(**{**vars(ROW), "bar": bar}).holds is holds


def test_the_file_has_what_was_measured_and_a_quick_one_is_held_against_no_bar() -> None:
    found = json.loads(json.dumps(real.document([ROW], quick=False)))
    assert (found["schema"], found["quick"]) == ("collegium/bench-real/v1", False)
    assert found["sizes"] == {"payload_bytes": 400_000, "parameters": 100_000}
    assert found["machine"]["processors"] == os.cpu_count()
    (row,) = found["rows"]
    assert row == {
        "what": "one phase",
        "sites": 5,
        "bar": 5.0,
        "ours": ROW.ours,
        "stock": ROW.stock,
        "waking": [3.0],
        "load": [0.5, 1.5],
        "medians": {"ours": 1.5, "stock": 10.5},
        "ratio": 7.0,
        "by_turn": [5.0, 15.0],
        "holds": True,
    }
    assert real.document([ROW], quick=True)["rows"][0]["holds"] is None


def test_the_table_has_the_ratio_and_the_load(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    real.show([ROW], quick=False)
    said = capsys.readouterr().out
    for text in ("one phase", "7.0", "5.0 - 15.0", ">= 5, holds", "1.50 : 10.5", "0.5 - 1.5"):
        assert text in said


def test_what_cannot_be_measured_is_said_and_no_file_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def nothing(*_arguments: object) -> Iterator[Row]:
        raise ConfigError("the banks are not at hand", hint="Get them.")

    monkeypatch.setattr(real, "_measured", nothing)
    real.main(["--out", str(tmp_path / "out.json")])
    assert capsys.readouterr().err.splitlines()[:2] == ["left out:", "the banks are not at hand"]
    assert not list(tmp_path.iterdir())


def test_both_sides_take_turns_and_the_first_one_changes() -> None:
    order: list[str] = []

    def side(name: str, seconds: float) -> Callable[[], list[float]]:
        def turn() -> list[float]:
            order.append(name)
            return [seconds] * 2

        return turn

    assert real._in_turns(side("ours", 1.0), side("stock", 2.0), 3) == ([[1.0, 1.0]] * 3, [[2.0, 2.0]] * 3)
    assert order == ["ours", "stock", "stock", "ours", "ours", "stock"]


def metrics(**changes: Any) -> str:
    told = {"round": 1, "attempts": 1, "answered": ["a", "b"], "skipped": False, "seconds": 0.25, **changes}
    return json.dumps(told) + "\n" + json.dumps({**told, "round": 2, "seconds": 0.5}) + "\n"


def test_rounds_that_went_through_count() -> None:
    check_rounds(metrics(), ["b", "a"])


@pytest.mark.parametrize("changes", [{"attempts": 2}, {"answered": ["a"]}, {"skipped": True}])
def test_a_round_that_did_not_go_through_with_all_sites_is_not_counted(changes: dict[str, Any]) -> None:
    with pytest.raises(TransportError, match="round 1 did not"):
        check_rounds(metrics(**changes), ["a", "b"])


@pytest.mark.parametrize("n_inputs", [1, 28, 500])
def test_the_model_has_about_the_parameters_that_are_wanted(n_inputs: int) -> None:
    hidden = hidden_for(100_000, n_inputs)
    found = (n_inputs + 1) * hidden + hidden + 1
    assert abs(found - 100_000) <= (n_inputs + 2) / 2


def test_there_are_not_more_banks_than_there_are() -> None:
    assert banks_of(("a", "b", "c"), 2) == ("a", "b")
    with pytest.raises(ConfigError, match="there are 3 banks, not 4"):
        banks_of(("a", "b", "c"), 4)


class WaitingGrid(LocalGrid):
    """A local grid that waits for its answers, as Flower's own grid does."""

    def send_and_receive(self, messages: Any, *, timeout: float | None = None) -> list[Message]:
        waiting, found = set(self.push_messages(messages)), list[Message]()
        end = time.monotonic() + min(timeout or 0, 10)
        while len(found) < len(waiting) and time.monotonic() < end:
            found += self.pull_messages(waiting)
        return found


def grid_of(app: Any) -> Grid:
    return WaitingGrid({7: app, 8: app}, run_id=1, node_configs={7: {}, 8: {}})


def test_an_order_is_carried_out_and_every_echo_is_looked_at() -> None:
    assert carried_out(grid_of(client), {"nodes": 2})[0] < 1
    (seconds,) = carried_out(grid_of(client), {"echo": 1000})
    assert seconds > 0

    def forgetful(message: Message, _context: object) -> Message:
        return Message(bytes_record(bytes_in(message)), reply_to=message)  # not reversed

    with pytest.raises(TransportError, match="no echo from 7, 8"):
        carried_out(grid_of(forgetful), {"echo": 1000})
    with pytest.raises(TransportError, match="no such order: dance"):
        carried_out(grid_of(client), {"dance": 1})


def test_questions_differ_and_a_missing_echo_is_found() -> None:
    asked = questions([1, 2], 100)
    assert {len(payload) for payload in asked.values()} == {100}
    assert asked[1] != asked[2]
    check_echoes(asked, {node: payload[::-1] for node, payload in asked.items()})
    with pytest.raises(TransportError, match="no echo from 2"):
        check_echoes(asked, {1: asked[1][::-1]})


def test_orders_cross_the_line_until_the_other_end_is_gone(tmp_path: Path) -> None:
    def server_app() -> None:
        with socket.socket(socket.AF_UNIX) as far, far.makefile("rw") as text:
            far.connect(str(tmp_path / "orders"))
            text.write(f"{os.getpid()}\n")
            text.flush()
            text.write(json.dumps([json.loads(text.readline())["echo"] / 2]) + "\n")
            text.flush()
            text.readline()

    with listening(tmp_path / "orders") as line:
        thread = threading.Thread(target=server_app)
        thread.start()
        with line.accept()[0] as connection:
            orders = Orders(connection)
            assert orders.process == os.getpid()
            assert orders.give(echo=3) == [1.5]
            with pytest.raises(TransportError, match="did not carry out nodes"):
                orders.give(nodes=2)
        thread.join()


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").split()[2] != "Z"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    end = time.monotonic() + 5
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_no_process_outlives_the_block_not_even_one_that_does_not_listen(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("deaf", "sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait")
        processes.start("meek", "sleep", "60")
        while not (tmp_path / "deaf.log").read_text().strip():
            time.sleep(0.01)
        child = int((tmp_path / "deaf.log").read_text())
        assert alive(child)
        processes.check()
        processes.stop("meek")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(real_sides, "_END", 0.1)
            processes.stop("deaf")
        assert gone(child)


def test_a_process_of_somebody_elses_that_stays_is_ended(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes, pytest.MonkeyPatch.context() as patch:
        processes.run("parent", "sh", "-c", "sleep 60 & echo $!")
        slow = int((tmp_path / "parent.log").read_text())
        patch.setattr(real_sides, "_END", 0.1)
        real_sides._see_off(slow)
        assert gone(slow)


def test_a_process_that_failed_is_named_with_its_last_line(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        with pytest.raises(TransportError, match="fails ended with 3: no luck"):
            processes.run("fails", "sh", "-c", "echo first; echo no luck >&2; exit 3")
        processes.start("short", "true")
        processes._running["short"].wait()
        with pytest.raises(TransportError, match="short ended early: it said nothing"):
            processes.check()


def test_a_signal_ends_the_block_in_order() -> None:
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    def block() -> None:
        with ended_by_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            finally:
                ended.append(True)

    with pytest.raises(SystemExit) as stopped:
        block()
    assert (stopped.value.code, ended) == (128 + signal.SIGTERM, [True])
    assert signal.getsignal(signal.SIGTERM) is before
