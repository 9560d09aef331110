"""Plans that run: read from `collegium plan`'s JSON, one canonical form, and what may cross is asked before it does."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy import command
from privacy.audit import schemas
from privacy.errors import ConfigError, PrivacyError
from strategies.chain_plan import (
    ChainPlan,
    StageSpec,
    check_crossings,
    crossings,
    decode_chain_plan,
    leaving,
    parse_chain_plan,
)
from strategies.devices import Device, Devices
from strategies.planner import Objective, Profile, Segment, Workload, plan
from strategies.release import AnyRelease, Crossing, Release, UnsafeRelease

EXAMPLES = Path(__file__).parent.parent.parent / "docs" / "examples"
MODEL = "docs.examples.models:cnn"


def chain(*devices: str, train: bool = True, releases: tuple[AnyRelease, ...] = ()) -> ChainPlan:
    """A device's organisation is its name up to the dash; home is own-pc."""
    cuts = ["", *(f"cut_{number}" for number in range(1, len(devices))), ""]
    stages = tuple(
        StageSpec(name, name.split("-")[0], start, end, (f"{number}.weight",), f"{number:064x}")
        for number, (name, start, end) in enumerate(zip(devices, cuts[:-1], cuts[1:], strict=True))
    )
    return ChainPlan("model", "own-pc", "own", stages, train, "sgd", 32, 4, releases)


def noisy(to: str, *what: str, noise: float = 5.0, most: int = 10) -> Release:
    return Release("own", to, frozenset(Crossing(each) for each in what), 1.0, noise, most)


def unsafe(to: str, *what: str) -> UnsafeRelease:
    return UnsafeRelease("own", to, frozenset(Crossing(each) for each in what), "agreed")


U = ("own-pc", "cloud-gpu", "own-pc")


def test_what_the_command_prints_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    devices = tmp_path / "devices.toml"
    text = (EXAMPLES / "devices-released.toml").read_text()
    devices.write_text(text.replace('"7 MB"', '"120 kB"').replace('"6 MB"', '"200 kB"'))
    assert command._outcome(["plan", "digits", "--devices", str(devices), "--json"]) == 0
    data = capsys.readouterr().out.encode()
    found, plan = json.loads(data), parse_chain_plan(data)
    assert (plan.home, plan.owner, plan.model) == ("ward-pc", "clinic", "digits")
    by_stage = sorted(
        ({**stage, "device": name} for name, device in found["plan"].items() for stage in device["stages"]),
        key=lambda stage: int(stage["stage"]),
    )
    assert len(by_stage) > 1
    assert [(each.device, each.start, each.end, list(each.keys), each.digest) for each in plan.stages] == [
        (each["device"], each["start"], each["end"], each["keys"], each["digest"]) for each in by_stage
    ]
    assert (plan.train, plan.optimizer, plan.micro_batch) == (
        True, found["work"]["optimizer"], found["analysis"]["records"],
    )  # fmt: skip
    assert decode_chain_plan(plan.encode()) == plan
    schemas.check("plan-v1", found)
    hops = [(each["from"], each["to"]) for each in found["hops"]]
    assert {(giver, taker) for _, giver, taker in crossings(plan)} <= {*hops, *((b, a) for a, b in hops)}


def test_a_plan_without_a_chain_does_not_run() -> None:
    for body, words in (({"schema": "collegium/plan/v1"}, "not a valid plan-v1"), ([], "not a valid plan-v1")):
        with pytest.raises(ConfigError, match=words):
            parse_chain_plan(json.dumps(body).encode())


def test_one_device_that_does_everything_is_no_chain(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    devices = tmp_path / "devices.toml"
    first, *_ = (EXAMPLES / "devices.toml").read_text().partition('[[devices]]\nname = "server-room"')
    devices.write_text(first)
    assert command._outcome(["plan", "digits", "--devices", str(devices), "--json"]) == 0
    data = capsys.readouterr().out.encode()
    assert json.loads(data)["chain"] is None
    with pytest.raises(ConfigError, match="no chain to run: one device does everything"):
        parse_chain_plan(data)
    old = json.loads(data)
    del old["chain"]
    with pytest.raises(ConfigError, match="plans do not run"):
        parse_chain_plan(json.dumps(old).encode())


def test_the_digest_is_of_the_one_form_and_of_every_field() -> None:
    plan = chain(*U, releases=(noisy("cloud", "activations", "gradients"),))
    assert decode_chain_plan(plan.encode()) == plan
    changed: list[Mapping[str, Any]] = [
        {"model": "other"}, {"train": False}, {"optimizer": "adam"}, {"micro_batch": 33}, {"in_flight": 5},
        {"releases": ()}, {"releases": (noisy("cloud", "activations", "gradients", most=11),)},
        {"stages": (*plan.stages[:1], replace(plan.stages[1], digest="f" * 64), *plan.stages[2:])},
    ]  # fmt: skip
    digests = {plan.digest, *(replace(plan, **each).digest for each in changed)}
    assert len(digests) == 1 + len(changed)
    with pytest.raises(ConfigError, match="canonical"):
        decode_chain_plan(b" " + plan.encode())


@pytest.mark.parametrize(
    "data", [b"", b"{", b"\xff", b"[" * 100_000, b'{"format": NaN}', b"null", b"[]", b'{"format":"collegium/chain/v2"}']
)
def test_bytes_that_are_no_plan_are_refused_plainly(data: bytes) -> None:
    for read in (decode_chain_plan, parse_chain_plan):
        with pytest.raises(ConfigError):
            read(data)


def test_any_bytes_are_a_plan_or_refused() -> None:
    random = np.random.default_rng(8)
    terms = (noisy("cloud", "activations"), unsafe("lab", "gradients"))
    data = chain("own-pc", "cloud-gpu", "lab-box", "own-pc", releases=terms).encode()
    read = 0
    for _ in range(1500):
        changed = bytearray(data)
        for _ in range(random.integers(1, 4)):
            place = int(random.integers(len(changed)))
            match int(random.integers(3)):
                case 0:
                    changed[place] = int(random.integers(256))
                case 1:
                    changed[place] = b'0123456789-e."{}[],:'[int(random.integers(20))]
                case _:
                    del changed[place : place + int(random.integers(1, 10))]
        try:
            read += decode_chain_plan(bytes(changed)).encode() == changed
        except ConfigError:
            continue
    assert 0 < read < 1500


def edited(**changes: object) -> bytes:
    return json.dumps({**chain(*U).body(), **changes}, separators=(",", ":"), sort_keys=True).encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"stages": []}, {"stages": "x"}, {"micro_batch": 0}, {"in_flight": 65}, {"in_flight": True}, {"train": 1},
        {"optimizer": "lion"}, {"releases": [{"owner": "own", "to": "cloud", "what": ["activations"]}]},
        {"releases": [{"owner": "other", "to": "cloud", "what": ["labels"], "unsafe": "x"}]},
        {"releases": [{"owner": "own", "to": "cloud", "what": ["labels"], "clip": 1, "noise": 1, "most": 1}]},
        {"releases": [{"owner": "own", "to": "cloud", "what": ["activations"], "clip": 1, "noise": 1e-300, "most": 1}]},
        {"releases": [{"owner": "own", "to": "cloud", "what": ["activations"], "clip": 1, "noise": 1, "most": 10**20}]},
        {"releases": [{"owner": "own", "to": "cloud", "what": ["labels"], "unsafe": "a\x1b[2J"}]}, {"model": "a\nb"},
        {"home": "cloud-gpu"}, {"owner": "cloud"}, {"home": "a\nb"}, {"more": 1}, {"model": ""},
    ],
)  # fmt: skip
def test_a_field_that_is_off_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        decode_chain_plan(edited(**changes))


def test_pieces_that_make_no_chain_are_refused() -> None:
    plan = chain("own-pc", "cloud-gpu", "lab-box", "own-pc")
    first, second, third, last = plan.stages
    for stages in (
        (first, third, last),  # one is missing
        (first, second, replace(third, device="cloud-gpu"), last),  # a device twice
        (first, second, replace(third, device="own-pc"), last),  # home in the middle
        (first, second, replace(third, keys=second.keys), last),  # a parameter twice
        (first, second, third, replace(last, organisation="cloud")),
        (replace(first, start="cut_9"), second, third, last),
        (first, replace(last, start=first.end)),  # all at home
    ):
        with pytest.raises(ConfigError):
            replace(plan, stages=stages)


def test_a_plan_that_no_reader_takes_is_never_written() -> None:
    most = 10**9
    plan = chain(*U, releases=(noisy("cloud", "activations", "gradients", most=most),))
    assert decode_chain_plan(plan.encode()) == plan
    with pytest.raises(ConfigError, match="at most 1000000000 times"):
        chain(*U, releases=(noisy("cloud", "activations", "gradients", most=most + 1),))


def test_who_holds_what() -> None:
    plan = chain("own-pc", "cloud-gpu", "lab-box", "own-pc")
    assert [stage.device for stage in plan.held] == ["cloud-gpu", "lab-box"]
    assert (plan.front, plan.tail, plan.labels_leave) == (plan.stages[0], plan.stages[3], False)
    assert plan.place("lab-box") == 1
    with pytest.raises(ConfigError, match="no piece for own-pc"):
        plan.place("own-pc")
    away = chain("cloud-gpu", "lab-box")
    assert (away.front, away.tail, away.labels_leave, len(away.held)) == (None, None, True, 2)


@pytest.mark.parametrize(
    ("devices", "train", "wanted"),
    [
        (U, True, ["activations own-pc cloud-gpu", "gradients own-pc cloud-gpu"]),
        (U, False, ["activations own-pc cloud-gpu"]),
        (("own-pc", "cloud-gpu"), True, ["activations own-pc cloud-gpu", "labels own-pc cloud-gpu"]),
        (("cloud-gpu",), False, ["inputs own-pc cloud-gpu"]),
        (
            ("own-pc", "cloud-gpu", "lab-box", "own-pc"),
            True,
            [
                "activations own-pc cloud-gpu", "activations cloud-gpu lab-box", "gradients own-pc lab-box",
                "gradients lab-box cloud-gpu",
            ],
        ),
    ],
)  # fmt: skip
def test_what_crosses(devices: tuple[str, ...], train: bool, wanted: list[str]) -> None:
    plan = chain(*devices, train=train)
    assert [" ".join(each) for each in crossings(plan)] == wanted


ACROSS = ("own-pc", "cloud-gpu", "lab-box", "own-pc")
BOTH = ("activations", "gradients")


@pytest.mark.parametrize(
    ("devices", "train", "releases", "refused"),
    [
        (U, True, (), "activations of own would reach cloud"),
        (U, True, (noisy("cloud", "activations"),), "gradients of own would reach cloud"),
        (U, True, (noisy("cloud", *BOTH),), ""),
        (U, True, (unsafe("cloud", *BOTH),), ""),
        (U, True, (noisy("lab", *BOTH),), "activations of own would reach cloud"),
        (U, False, (noisy("cloud", "activations"),), ""),
        (("own-pc", "cloud-gpu"), True, (noisy("cloud", *BOTH),), "labels of own would reach cloud"),
        (("own-pc", "cloud-gpu"), True, (noisy("cloud", *BOTH), unsafe("cloud", "labels")), ""),
        (("cloud-gpu",), False, (noisy("cloud", *BOTH),), "inputs of own would reach cloud"),
        (("cloud-gpu",), False, (unsafe("cloud", "inputs"),), ""),
        (("own-pc", "own-room", "own-pc"), True, (), ""),
        (("own-pc", "own-room"), True, (), ""),
        # What is computed from noised values is as noised as they were, and needs the next one's leave all the same.
        (ACROSS, True, (noisy("cloud", *BOTH),), "activations of own would reach lab"),
        (ACROSS, True, (noisy("cloud", *BOTH), noisy("lab", *BOTH)), ""),
        (ACROSS, True, (noisy("cloud", *BOTH), noisy("lab", *BOTH, noise=6.0)), "less noise than their release to lab"),
        (ACROSS, True, (noisy("cloud", *BOTH), noisy("lab", *BOTH, most=9)), "less noise than their release to lab"),
        (ACROSS, True, (unsafe("cloud", *BOTH), noisy("lab", *BOTH)), "less noise than their release to lab"),
        (ACROSS, True, (noisy("cloud", *BOTH), unsafe("lab", *BOTH)), "gradients would reach cloud from lab-box"),
        (ACROSS, True, (unsafe("cloud", *BOTH), unsafe("lab", *BOTH)), ""),
        # Noise is added at home and nowhere else.
        (("own-pc", "own-room", "cloud-gpu"), False, (noisy("cloud", "activations"),), "less noise than"),
        (("own-pc", "own-room", "cloud-gpu"), False, (unsafe("cloud", "activations"),), ""),
        (("own-pc", "cloud-gpu", "own-room"), True, (noisy("cloud", *BOTH),), "gradients would reach cloud"),
    ],
)
def test_nothing_crosses_without_its_owners_release(
    devices: tuple[str, ...],
    train: bool,
    releases: tuple[AnyRelease, ...],
    refused: str,
) -> None:
    plan = chain(*devices, train=train, releases=releases)
    if refused:
        with pytest.raises(PrivacyError, match=refused) as error:
            check_crossings(plan)
        assert len(error.value.lines()) == 2
        assert "\n" not in str(error.value)
        with pytest.raises(PrivacyError):
            leaving(plan)
    else:
        check_crossings(plan)


def some_releases(random: np.random.Generator) -> tuple[AnyRelease, ...]:
    """One or two for each other organisation, of random kinds, with noise or without."""
    found: list[AnyRelease] = []
    for to in ("lab", "cloud"):
        for _ in range(int(random.integers(1, 3))):
            what = [str(each) for each in Crossing if random.random() < 0.7]
            if random.random() < 0.5:
                found.append(unsafe(to, *what))
            else:
                found.append(
                    noisy(to, *{*what} & {*BOTH}, noise=float(random.integers(1, 4)), most=int(random.integers(1, 4)))
                )
    return tuple(found)


def test_what_the_planner_finds_may_run() -> None:
    """Over random devices and releases: the planner asks from hop to hop, the check follows the values."""
    random = np.random.default_rng(11)
    across = noised = passed_on = 0
    for _ in range(600):
        segments = tuple(Segment(*random.uniform(1, 9, 5)) for _ in range(4))
        profile = Profile(segments, tuple(random.uniform(1, 3, 5)), ("cut_1", "cut_2", "cut_3"))
        names = [
            "own-0",
            *(f"{random.choice(['own', 'lab', 'lab', 'cloud', 'cloud'])}-{number}" for number in range(1, 4)),
        ]
        devices = [Device(each, each.split("-")[0], 1.0, random.uniform(15, 45), 1e3, 1e-3) for each in names]
        releases, work = some_releases(random), Workload(train=bool(random.integers(2)), optimizer="sgd")
        found = plan(profile, Devices(tuple(devices), releases), work, Objective.LATENCY)
        if found is None or all(stage.device == devices[0] for stage in found.stages):
            continue
        cuts = ("", *profile.nodes, "")
        stages = tuple(
            StageSpec(
                each.device.name, each.device.organisation, cuts[each.start], cuts[each.end], (str(each.start),), ""
            )
            for each in found.stages
        )
        chain_plan = ChainPlan("model", "own-0", "own", stages, work.train, "sgd", 1, 1, releases)
        check_crossings(chain_plan)
        across += any(release is not None for release in leaving(chain_plan).values())
        noised += any(isinstance(release, Release) for release in leaving(chain_plan).values())
        passed_on += len({stage.organisation for stage in stages}) == 3
    assert min(across, noised, passed_on) > 5, (across, noised, passed_on)


def test_what_leaves_home_and_on_which_terms() -> None:
    release = noisy("cloud", *BOTH)
    assert leaving(chain(*U, releases=(release,))) == {Crossing.ACTIVATIONS: release, Crossing.GRADIENTS: release}
    assert leaving(chain("own-pc", "own-room")) == {Crossing.ACTIVATIONS: None, Crossing.LABELS: None}
