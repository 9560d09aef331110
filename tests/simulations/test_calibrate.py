"""Measured devices: the line that is fitted, who is asked what, and what the plan makes of it and says."""

import json
import math
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clients.chain.installed import Installed
from clients.chain.measure import KIND, MeasureService, Times
from clients.channel.memory import pair
from clients.channel.message import Message
from clients.channel.session import ChannelClosedError, Opening, RemoteRefusalError, Session
from privacy import command
from privacy.audit import schemas
from privacy.errors import ConfigError, FederationError, RemoteProtocolError
from privacy.store.log import Record
from privacy.store.site_folder import SiteFolder
from simulations.planning import calibrate as calibration
from simulations.planning import command as planning
from simulations.planning.calibrate import Calibration, Dial, Line, Measured, calibrate, fit, installed, over_channel
from strategies.analysis import analyse
from strategies.cuts import Piece, find_cuts, split
from strategies.devices import Device, Devices, parse_devices
from strategies.planner import Objective, Workload, plan, profile
from tests.clients.chain.holders import INPUTS, MLP
from tests.federation import federate

HOME = Device("ward-pc", "alba", 1e9, 1e9, bandwidth=1e6, round_trip=1.0)
FAR = Device("server", "brno", 1e9, 1e9, bandwidth=1e6, round_trip=1.0, address="far:1")
FARTHER = replace(FAR, name="cloud", organisation="cork", address="farther:1")
SIZES = np.array(calibration.SIZES, dtype=np.float64)


def pieces() -> tuple[Piece, ...]:
    traced, inputs = MLP.traced(0, train=True)
    return split(traced, [cut for cut in find_cuts(analyse(traced, inputs)) if not cut.shared_keys])


def dial_to(model: Installed, asked: list[str] | None = None, records: list[Record] | None = None) -> Dial:
    """A device behind a session in memory."""

    def dial(device: Device) -> Session:
        if asked is not None:
            asked.append(device.name)
        service = MeasureService(model, lambda: False, (records if records is not None else []).append)
        opening = Opening(KIND, secrets.token_bytes(16), b"", "")
        service.admit("alba", opening)
        near, far = pair("alba", device.organisation, opening)
        threading.Thread(target=_served, args=(service, far), daemon=True).start()
        return near

    return dial


def _served(service: MeasureService, session: Session) -> None:
    try:
        service.run(session)
    except FederationError as error:
        session.close(str(error))


def liar(answer: Callable[[Message], Message]) -> Dial:
    """A device that answers as it likes."""

    def dial(device: Device) -> Session:
        near, far = pair("alba", device.organisation, Opening(KIND, secrets.token_bytes(16), b"", ""))

        def lie() -> None:
            with suppress(ChannelClosedError):
                while True:
                    far.send(answer(far.receive()))

        threading.Thread(target=lie, daemon=True).start()
        return near

    return dial


@pytest.mark.parametrize(("latency", "rate"), [(0.001, 1e8), (0.05, 1e6), (1e-5, 5e9), (0.0, 1e7)])
def test_a_line_is_found_again_from_its_own_times(latency: float, rate: float) -> None:
    seconds = 2 * latency + 2 * SIZES / rate
    found = fit([(int(size), float(each)) for size, each in zip(SIZES, seconds, strict=True)])
    assert found.latency == pytest.approx(latency, rel=1e-6, abs=1e-12)
    assert found.rate == pytest.approx(rate, rel=1e-6)
    assert found.points == tuple((int(size), each) for size, each in zip(SIZES, seconds, strict=True))


def test_both_ends_of_a_noisy_line_are_found_within_the_noise() -> None:
    drawn = np.random.default_rng(1)
    for _ in range(50):
        latency, rate = 10 ** drawn.uniform(-4, -1), 10 ** drawn.uniform(6, 9)
        seconds = (2 * latency + 2 * SIZES / rate) * drawn.uniform(0.9, 1.1, len(SIZES))
        found = fit([(int(size), float(each)) for size, each in zip(SIZES, seconds, strict=True)])
        for size, each in zip(SIZES, seconds, strict=True):
            assert 2 * found.latency + 2 * size / found.rate == pytest.approx(each, rel=0.25)


def test_a_line_without_measurable_latency_goes_through_the_origin() -> None:
    found = fit([(1000, 1e-6), (10_000, 2e-5), (100_000, 2.1e-4)])
    assert found.latency == 0
    assert 1e8 < 2 * found.rate < 4e9


def test_times_that_fall_with_the_size_are_no_line() -> None:
    with pytest.raises(ConfigError, match="took no longer"):
        fit([(1000, 0.3), (10_000, 0.2), (100_000, 0.1)])


def test_every_device_is_asked_for_every_segment_and_its_line() -> None:
    asked: list[str] = []
    records: list[Record] = []
    told: list[str] = []
    work = Workload(optimizer="momentum")
    given = Devices((HOME, FAR, FARTHER))
    dial = dial_to(MLP, asked, records)
    found = calibrate(MLP, pieces(), given, work, dial, records=12, told=told.append)
    assert asked == ["server", "cloud"]
    assert [record.kind for record in records] == ["measure", "measure"]
    assert told == ["measuring ward-pc, this machine", "measuring server", "measuring cloud"]
    for name, each in found.measured.items():
        assert len(each.forward) == len(each.backward) == len(each.optimizer) == len(pieces())
        assert min(each.seconds) > 0
        assert each.seconds[0] == pytest.approx(each.forward[0] + each.backward[0] + each.optimizer[0])
        assert (each.line is None) == (name == "ward-pc")
    line = found.measured["server"].line
    assert line is not None
    assert [size for size, _ in line.points] == list(calibration.SIZES)
    home, far, _ = found.devices(given).devices
    assert (home.bandwidth, home.round_trip) == (math.inf, 0.0)
    assert (far.bandwidth, far.round_trip) == (line.rate, 2 * line.latency)
    assert far.way_to(home) == home.way_to(far) == pytest.approx(line.latency)
    assert far.seconds_to(home, 1e6) == 1e6 / line.rate
    assert found.work(work).timed["server"] == found.measured["server"].seconds
    assert found.work(work).optimizer == "momentum"


def test_for_inference_only_the_forward_pass_counts() -> None:
    traced, inputs = MLP.traced(0, train=False)
    segments = split(traced, find_cuts(analyse(traced, inputs)))
    found = calibrate(MLP, segments, Devices((HOME, FAR)), Workload(train=False), dial_to(MLP), records=4)
    for each in found.measured.values():
        assert set(each.backward) == set(each.optimizer) == {0.0}
        assert each.seconds == each.forward


def test_the_plan_is_made_with_what_was_measured() -> None:
    analysis = analyse(*MLP.traced(0, train=True))
    model = profile(analysis, find_cuts(analysis))
    n = len(model.segments)
    slow, fast = (1.0,) * n, (0.001,) * n
    nothing = (0.0,) * n
    given = Devices((HOME, replace(FAR, organisation="alba")))

    def planned(home: tuple[float, ...], far: tuple[float, ...], line: Line) -> Any:
        found = Calibration({
            "ward-pc": Measured(home, nothing, nothing, None),
            "server": Measured(nothing, far, nothing, line),
        })  # fmt: skip
        return plan(model, found.devices(given), found.work(Workload()), Objective.LATENCY)

    near = Line(0.001, 1e9)
    chain = planned(slow, fast, near)
    assert [stage.device.name for stage in chain.stages] == ["server"]
    assert chain.stages[0].seconds == pytest.approx(0.001 * n)
    assert chain.latency == pytest.approx(0.001 * n + 0.001 + model.crossing[0] / 1e9)
    assert [stage.device.name for stage in planned(fast, slow, near).stages] == ["ward-pc"]
    assert [stage.device.name for stage in planned(slow, fast, Line(100.0, 1e9)).stages] == ["ward-pc"]


def test_a_device_without_address_is_named_before_anybody_is_asked() -> None:
    asked: list[str] = []
    with pytest.raises(ConfigError, match="does not say where cloud listens") as caught:
        calibrate(
            MLP,
            pieces(),
            Devices((HOME, FAR, replace(FARTHER, address=""))),
            Workload(),
            dial_to(MLP, asked),
            records=4,
        )
    assert asked == []
    assert len(caught.value.lines()) == 2


def test_a_device_with_another_model_refuses() -> None:
    def other(_seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
        return nn.Sequential(nn.Linear(INPUTS, 8), nn.Tanh(), nn.Linear(8, 2)), (torch.zeros(2, INPUTS),)

    with pytest.raises(RemoteRefusalError, match="brno"):
        calibrate(MLP, pieces(), Devices((HOME, FAR)), Workload(), dial_to(Installed("another", other)), records=4)


def _shorter(message: Message) -> Message:
    return replace(message, tensors={"x": message.tensors["x"][:-1]})


def _timed(*columns: tuple[float, ...]) -> Callable[[Message], Message]:
    return lambda message: message if message.tensors else Times(*columns).message()


@pytest.mark.parametrize(
    "answer",
    [_shorter, lambda message: replace(message, tensors={}), _timed((1.0,), (), ()), _timed((1.0,), (1.0,), ())],
)
def test_an_answer_that_is_none_is_refused(answer: Callable[[Message], Message]) -> None:
    with pytest.raises(RemoteProtocolError, match="brno"):
        calibrate(MLP, pieces(), Devices((HOME, FAR)), Workload(), liar(answer), records=4)


def test_the_first_device_is_this_machine(tmp_path: Path) -> None:
    folder = federate(tmp_path / "north").folders["alba"]
    with over_channel(folder, Devices((HOME, FAR))) as dial:
        assert callable(dial)
    with pytest.raises(ConfigError, match=r"server, the first device, is brno's, and .* is alba's"):
        over_channel(folder, Devices((FAR, HOME))).__enter__()


def test_a_scenario_is_measured_with_its_own_model() -> None:
    module, inputs = installed("digits", []).make(0)
    assert module(*inputs).shape[0] == len(inputs[0])
    assert installed("tests.clients.chain.holders:mlp", []).traced(0, train=True)[0].module is not None


DEVICES = """
[[devices]]
name = "ward-pc"
organisation = "alba"
speed = "0.001 MFLOP/s"
memory = "0.01 kB"
bandwidth = "1 kB/s"
round_trip = "1 s"

[[devices]]
name = "server"
organisation = "alba"
speed = "0.001 MFLOP/s"
memory = "1 GB"
bandwidth = "1 kB/s"
round_trip = "1 s"
address = "127.0.0.1:9"
"""


@contextmanager
def in_memory(_folder: SiteFolder, _devices: Devices) -> Iterator[Dial]:
    yield dial_to(MLP)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = command._outcome(["plan", "tests.clients.chain.holders:mlp", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_plans_with_what_it_measured_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "devices.toml").write_text(DEVICES)
    folder = federate(tmp_path / "north").folders["alba"]
    monkeypatch.setattr(planning, "over_channel", in_memory)
    files = "--devices", str(tmp_path / "devices.toml"), "--calibrate", str(folder.path)
    code, told, _ = run(capsys, *files, "--json")
    found = json.loads(told)
    schemas.check("plan-v1", found)
    assert code == 0
    assert set(found["measured"]) == {"ward-pc", "server"}
    assert found["measured"]["ward-pc"]["line"] is None
    assert len(found["measured"]["server"]["line"]["points"]) == len(calibration.SIZES)
    server, line = found["measured"]["server"], found["measured"]["server"]["line"]
    computed = sum(sum(server[name]) for name in ("forward", "backward", "optimizer"))
    sent = line["latency"] + 2 * 6 * 4 / line["rate"]  # two records of six numbers; the first device holds nothing
    assert found["cost"]["latency"] == pytest.approx(computed + sent)
    code, told, _ = run(capsys, *files)
    assert code == 0
    assert "Measured: ward-pc takes" in told
    assert "MB/s." in told
    code, told, _ = run(capsys, *files[:2], "--json")
    assert json.loads(told)["measured"] is None


def test_a_folder_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "devices.toml").write_text(DEVICES)
    (tmp_path / "empty").mkdir(mode=0o700)
    code, told, errors = run(
        capsys, "--devices", str(tmp_path / "devices.toml"), "--calibrate", str(tmp_path / "empty")
    )
    assert (code, told) == (2, "")
    assert "is no party's folder" in errors


def test_an_address_is_text() -> None:
    entry = {
        "name": "a", "organisation": "a", "speed": "1 MFLOP/s", "memory": "1 GB", "bandwidth": "1 kB/s",
        "round_trip": "1 s",
    }  # fmt: skip
    assert parse_devices({"devices": [entry]}).devices[0].address == ""
    assert parse_devices({"devices": [{**entry, "address": "x:1"}]}).devices[0].address == "x:1"
    with pytest.raises(ConfigError, match="address"):
        parse_devices({"devices": [{**entry, "address": 9453}]})
