"""Identity keys of a simulation: readable by their owner only, there while the run lasts, gone afterwards."""

from pathlib import Path

import pytest

from privacy.errors import ConfigError
from simulations.identities import Identities
from strategies.task import SiteId

SITES = (SiteId("a"), SiteId("b"), SiteId("c"))


def test_each_site_finds_its_own_key_and_everybodys_public_half(tmp_path: Path) -> None:
    Identities.create(tmp_path, SITES)
    found = Identities(tmp_path)
    assert {site: found.key(site).public_key for site in SITES} == dict(found.roster.keys)
    assert len(set(found.roster.keys.values())) == len(SITES)


def test_private_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    Identities.create(tmp_path, SITES)
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in (tmp_path / "keys").glob("*.key"))


def test_nothing_is_left_after_erasing(tmp_path: Path) -> None:
    made = Identities.create(tmp_path, SITES)
    made.erase()
    made.erase()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ConfigError, match="identity keys"):
        _ = made.roster
    with pytest.raises(ConfigError):
        made.key(SITES[0])


def test_keys_are_never_drawn_twice_in_one_folder(tmp_path: Path) -> None:
    Identities.create(tmp_path, SITES)
    with pytest.raises(ConfigError, match="cannot be written"):
        Identities.create(tmp_path, SITES)
