"""Whatever somebody writes as TOML: a document, or one plain error."""

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from privacy.charter.draft import from_draft
from privacy.errors import ConfigError
from privacy.policy.table import parse
from privacy.store.site_settings import read_site_settings
from privacy.toml_document import parse_toml
from simulations.scenario import load
from strategies.devices import read_devices
from strategies.study import read_study

ROOT = Path(__file__).parents[2]
HOSTILE = {
    "digits": "x = " + "1" * 5000,
    "deep": "x = " + "[" * 5000,
    "exponent": "x = 1e99999999999999999999",
    "cut": "x = ",
    "control": "x = \x00",
    "large": "x = 1" + "0" * 400,
    "beyond": "batch = 9007199254740993",
}


def test_fractions_are_floats_or_stand_as_they_are_written() -> None:
    assert parse_toml("x = 0.1", "a file") == {"x": 0.1}
    assert parse_toml("x = 0.1", "a file", decimals=True) == {"x": Decimal("0.1")}


@pytest.mark.parametrize("name", ["digits", "deep", "cut", "control"])
def test_what_is_no_toml_is_one_plain_error(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^a file: not valid TOML: ") as refused:
        parse_toml(HOSTILE[name], "a file", hint="Write another.")
    assert (len(str(refused.value)) < 200, refused.value.hint) == (True, "Write another.")


def _read(path: Path, read: Callable[[str], object]) -> object:
    return read(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: load(str(path)),
        read_devices,
        lambda path: _read(path, lambda text: read_study(text, where="study.toml")),
        lambda path: _read(path, parse),
        lambda path: _read(path, from_draft),
        lambda path: _read(path, lambda text: read_site_settings(text, Path())),
    ],
    ids=["scenario", "devices", "study", "policy table", "draft", "site"],
)
def test_every_reader_refuses_it_plainly(read: Callable[[Path], object], text: str, tmp_path: Path) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError):
        read(path)


def test_what_a_stranger_wrote_is_read_nowhere_else() -> None:
    reading = {
        str(path.relative_to(ROOT))
        for package in ("privacy", "strategies", "server", "clients", "simulations")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\btomllib\.load", path.read_text(encoding="utf-8"))
    }
    assert reading == {"privacy/toml_document.py", "simulations/export.py"}  # the second: what was loaded before
