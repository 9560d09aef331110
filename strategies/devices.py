"""The devices that may hold parts of a model, read from a TOML file: strict, every message with its place."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from privacy.errors import ConfigError
from privacy.toml_document import parse_toml
from strategies.release import AnyRelease, Crossing, Release, find_release, read_release
from strategies.task_file import StrictTable

_HINT = "The keys and what they mean: docs/how-to-plan.md."
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*([A-Za-z/]+)")
_UNITS: Mapping[str, Mapping[str, float]] = {
    "speed": {"MFLOP/s": 1e6, "GFLOP/s": 1e9, "TFLOP/s": 1e12},
    "memory": {"kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "bandwidth": {"kbit/s": 125.0, "Mbit/s": 125e3, "Gbit/s": 125e6, "kB/s": 1e3, "MB/s": 1e6, "GB/s": 1e9},
    "round_trip": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
}


@dataclass(frozen=True)
class Device:
    """A machine that can hold a part of a model; all public.

    Attributes:
      organisation: Who runs it; within an organisation values may move freely.
      speed: Floating-point operations a second.
      memory: Bytes.
      bandwidth: Bytes a second of its line, each way.
      round_trip: Seconds from the device to the middle of the network and back.
      address: ``host:port`` where its `collegium stage serve` listens; empty: unknown.
    """

    name: str
    organisation: str
    speed: float
    memory: float
    bandwidth: float
    round_trip: float
    address: str = ""

    def seconds_to(self, other: "Device", n_bytes: float) -> float:
        """Returns how long a transfer occupies the slower of the two lines, without the way."""
        return n_bytes / min(self.bandwidth, other.bandwidth)

    def way_to(self, other: "Device") -> float:
        """Returns the seconds that a byte is under way."""
        return (self.round_trip + other.round_trip) / 2


@dataclass(frozen=True)
class Devices:
    """The devices in their order: the first has the data and the labels, and work passes down the list.

    Attributes:
      devices: At least one, with unique names.
      releases: What organisations let others have of their data; without one, nothing.
    """

    devices: tuple[Device, ...]
    releases: tuple[AnyRelease, ...] = ()

    def needs_release(self, giver: Device, taker: Device) -> bool:
        """Whether what comes from the first device's records may pass only under a release.

        Within an organisation it may pass freely, and back to the one whose records it comes from.
        """
        return taker.organisation not in {giver.organisation, self.devices[0].organisation}

    def release(self, what: Crossing, taker: Device) -> AnyRelease | None:
        """Returns the release under which what comes from the first device's records may reach another."""
        owner = self.devices[0].organisation
        return find_release(self.releases, what, owner=owner, to=taker.organisation)

    def may_pass(self, what: Crossing, giver: Device, taker: Device) -> bool:
        """Whether what comes from the first device's records may pass between two devices.

        Noise is added at the first device only. So under a release with noise others may pass on what was noised as
        much before it reached them, and nothing else.
        """
        if not self.needs_release(giver, taker):
            return True
        release = self.release(what, taker)
        if not isinstance(release, Release) or giver == self.devices[0]:
            return release is not None
        owner = self.devices[0].organisation
        held = [each for each in self.releases if (each.owner, each.to) == (owner, giver.organisation)]
        return bool(held) and all(
            isinstance(each, Release) and each.noise >= release.noise and each.most <= release.most for each in held
        )


def read_devices(path: Path) -> Devices:
    """Reads a devices file.

    Raises: ConfigError: No such file, or anything missing, misspelt, of a wrong type or contradictory.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", hint=_HINT) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not text in UTF-8", hint=_HINT) from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    return parse_devices(parse_toml(text, str(path), hint=_HINT), where=f"{path}: ")


def parse_devices(data: Mapping[str, object], *, where: str = "") -> Devices:
    """Reads devices and releases out of a TOML document.

    Args:
      data: The document. Public.
      where: Prefix of messages, such as ``"devices.toml: "``.

    Raises: ConfigError: Anything missing, misspelt, of a wrong type or contradictory.
    """
    table = _Table(data, where)
    entries = table.tables("devices")
    devices: list[Device] = []
    for index, entry in enumerate(entries):
        device = _device(entry)
        if any(device.name == other.name for other in devices):
            raise table.error(f"devices[{index}].name", f"{device.name!r} is there twice")
        devices.append(device)
    organisations = {device.organisation for device in devices}
    releases = []
    for index, entry in enumerate(table.tables("releases", optional=True)):
        release = read_release(entry)
        for key, name in (("owner", release.owner), ("to", release.to)):
            if name not in organisations:
                known = ", ".join(sorted(organisations))
                raise table.error(f"releases[{index}].{key}", f"no device is of {name!r}", hint=f"There are: {known}.")
        releases.append(release)
    table.close()
    return Devices(tuple(devices), tuple(releases))


def _device(table: StrictTable) -> Device:
    device = Device(
        name=table.text("name"),
        organisation=table.text("organisation"),
        speed=_quantity(table, "speed"),
        memory=_quantity(table, "memory"),
        bandwidth=_quantity(table, "bandwidth"),
        round_trip=_quantity(table, "round_trip"),
        address=table.text("address") if "address" in table else "",
    )
    table.close()
    return device


def _quantity(table: StrictTable, key: str) -> float:
    units = _UNITS[key]
    text = table.text(key)
    match = _QUANTITY.fullmatch(text)
    if not match or match[2] not in units:
        example = f"20 {list(units)[1]}"
        raise table.error(key, f"must be a number with a unit, {', '.join(units)}, such as {example!r}; not {text!r}")
    value = float(match[1]) * units[match[2]]
    if not math.isfinite(value) or (value == 0.0 and key != "round_trip"):
        raise table.error(key, f"must be greater than 0 and finite, not {text!r}")
    return value


class _Table(StrictTable):
    """A table of a devices file: its messages point to the page about devices."""

    def error(self, key: str, problem: str, *, hint: str = _HINT) -> ConfigError:
        return super().error(key, problem, hint=hint)

    def tables(self, key: str, *, optional: bool = False) -> list[StrictTable]:
        values = self._list(key, default=() if optional else None)
        if not values and not optional:
            raise self.error(key, "must have at least one entry")
        return [_Table(value, f"{self._at(key)}[{index}]") for index, value in enumerate(values)]
