"""Devices files: units, strictness, and releases between organisations."""

import copy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from privacy.errors import ConfigError
from strategies.devices import Device, parse_devices, read_devices
from strategies.release import Crossing, Release, UnsafeRelease, find_release

EXAMPLE = Path(__file__).parent.parent.parent / "docs" / "examples" / "devices.toml"

GOOD = """
[[devices]]
name = "a"
organisation = "clinic"
speed = "2.5 GFLOP/s"
memory = "4 GB"
bandwidth = "100 Mbit/s"
round_trip = "20 ms"

[[devices]]
name = "b"
organisation = "cloud"
speed = "1e3 MFLOP/s"
memory = "2 GiB"
bandwidth = "1 MB/s"
round_trip = "0 s"

[[releases]]
owner = "clinic"
to = "cloud"
what = ["activations", "gradients"]
clip = 1
noise = 4.5
most = 20

[[releases]]
owner = "clinic"
to = "cloud"
what = ["labels", "activations"]
unsafe = "these labels are public"
"""


def test_units_are_bytes_seconds_and_operations_a_second() -> None:
    devices = parse_devices(tomllib.loads(GOOD))
    assert devices.devices == (
        Device("a", "clinic", 2.5e9, 4e9, 12.5e6, 0.02),
        Device("b", "cloud", 1e9, 2 * 2**30, 1e6, 0.0),
    )
    first, second = devices.devices
    assert first.seconds_to(second, 5e6) == second.seconds_to(first, 5e6) == 5.0, "the slower line decides"
    assert first.way_to(second) == 0.01


def test_releases_are_read_and_noise_is_preferred() -> None:
    releases = parse_devices(tomllib.loads(GOOD)).releases
    priced = Release("clinic", "cloud", frozenset({Crossing.ACTIVATIONS, Crossing.GRADIENTS}), 1.0, 4.5, 20)
    unsafe = UnsafeRelease(
        "clinic", "cloud", frozenset({Crossing.LABELS, Crossing.ACTIVATIONS}), "these labels are public"
    )
    assert releases == (priced, unsafe)
    assert find_release(releases[::-1], Crossing.ACTIVATIONS, owner="clinic", to="cloud") == priced
    assert find_release(releases, Crossing.LABELS, owner="clinic", to="cloud") == unsafe
    assert find_release(releases, Crossing.INPUTS, owner="clinic", to="cloud") is None
    assert find_release(releases, Crossing.LABELS, owner="cloud", to="clinic") is None
    assert find_release(releases, Crossing.LABELS, owner="lab", to="cloud") is None


def test_the_example_file_is_usable() -> None:
    assert [device.organisation for device in read_devices(EXAMPLE).devices] == ["clinic", "clinic", "cloud"]


@pytest.mark.parametrize(
    ("table", "index", "change", "said"),
    [
        ("devices", 0, {"speed": 5e9}, "devices[0].speed: must be text"),
        ("devices", 0, {"speed": "5"}, "devices[0].speed: must be a number with a unit, MFLOP/s"),
        ("devices", 0, {"memory": "4 Gb"}, "devices[0].memory: must be a number with a unit"),
        ("devices", 1, {"memory": "-4 GB"}, "devices[1].memory: must be a number with a unit"),
        ("devices", 0, {"memory": "0 GB"}, "devices[0].memory: must be greater than 0"),
        ("devices", 0, {"speed": "1e999 GFLOP/s"}, "devices[0].speed: must be greater than 0 and finite"),
        ("devices", 0, {"round_trip": "20 GB"}, "devices[0].round_trip: must be a number with a unit, us, ms, s"),
        ("devices", 0, {"memory": None}, "devices[0].memory: is missing"),
        ("devices", 0, {"organisation": " "}, "devices[0].organisation: must not be empty"),
        ("devices", 1, {"name": "a"}, "devices[1].name: 'a' is there twice"),
        ("devices", 0, {"colour": "red"}, "devices[0].colour: unknown key"),
        ("releases", 0, {"owner": "clinc"}, "releases[0].owner: no device is of 'clinc'"),
        ("releases", 0, {"to": "clinic"}, "releases[0].to: is the owner itself"),
        ("releases", 0, {"what": []}, "releases[0].what: must name at least one"),
        ("releases", 0, {"what": ["weights"]}, "releases[0].what: 'weights' is not one of"),
        ("releases", 0, {"what": ["labels"]}, "releases[0].what: labels can only be released with unsafe"),
        ("releases", 0, {"what": ["inputs"]}, "releases[0].what: inputs can only be released with unsafe"),
        ("releases", 0, {"noise": 0}, "releases[0].noise: must be greater than 0"),
        ("releases", 0, {"clip": 0}, "releases[0].clip: must be greater than 0"),
        ("releases", 0, {"most": 0}, "releases[0].most: must be at least 1"),
        ("releases", 0, {"most": None}, "releases[0].most: is missing"),
        ("releases", 0, {"unsafe": "reason"}, "releases[0].clip: has no effect beside unsafe"),
        ("releases", 1, {"unsafe": ""}, "releases[1].unsafe: must not be empty"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(table: str, index: int, change: dict[str, Any], said: str) -> None:
    data = copy.deepcopy(tomllib.loads(GOOD))
    for key, value in change.items():
        data[table][index][key] = value
        if value is None:
            del data[table][index][key]
    with pytest.raises(ConfigError) as caught:
        parse_devices(data, where="d.toml: ")
    assert str(caught.value).startswith(f"d.toml: {said}")
    assert caught.value.hint
    assert "own-data" not in caught.value.hint


@pytest.mark.parametrize("data", [{}, {"devices": []}, {"devices": [3]}, {"devices": 3}, {"device": [{}]}])
def test_a_file_without_devices_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="devices"):
        parse_devices(data)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        read_devices(tmp_path / "missing.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_devices(tmp_path)
    for content, said in ((b"\xff", "not text"), (b"[[devices]", "not valid TOML")):
        (tmp_path / "bad.toml").write_bytes(content)
        with pytest.raises(ConfigError, match=said):
            read_devices(tmp_path / "bad.toml")
