"""The files that start an agent and a launcher say what the programs do: commands, statuses, and no more rights."""

import configparser
import re
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = {
    "collegium-site@.service": "site start",
    "collegium-server.service": "server start",
    "collegium-serve@.service": "serve",
    "collegium-stage@.service": "stage serve",
}


def service(name: str) -> dict[str, list[str]]:
    """The unit's [Service] section; a key may be there twice."""
    found: dict[str, list[str]] = {}
    section = (DEPLOY / name).read_text().partition("[Service]")[2].partition("[Install]")[0]
    for line in section.splitlines():
        if line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize(("name", "command"), UNITS.items())
def test_a_unit_starts_the_command_and_stops_where_a_person_must_act(name: str, command: str) -> None:
    unit = service(name)
    (start,) = unit["ExecStart"]
    assert re.fullmatch(rf"/opt/collegium/bin/collegium {command} /var/lib/collegium/[a-z%]+", start)
    assert unit["ReadWritePaths"] == [start.split()[-1]]
    assert unit["Restart"] == ["always"]
    assert unit["RestartPreventExitStatus"] == ["2"]
    assert int(unit["TimeoutStopSec"][0]) >= 20
    configparser.ConfigParser(strict=False, interpolation=None).read_string((DEPLOY / name).read_text())


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_gives_no_more_rights_than_needed(name: str) -> None:
    unit = service(name)
    assert unit["User"] == ["collegium"]
    assert unit["CapabilityBoundingSet"] == [""]
    assert unit["UMask"] == ["0077"]
    assert unit["LimitCORE"] == ["0"]
    assert unit["ProtectSystem"] == ["strict"]
    for key in ("NoNewPrivileges", "PrivateTmp", "ProtectKernelTunables", "RestrictNamespaces", "RestrictSUIDSGID"):
        assert unit[key] == ["yes"]


def test_an_image_runs_as_nobody_in_particular_and_gets_signals_itself() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    for target, command in (("site", "site"), ("server", "server")):
        stage = text.partition(f"AS {target}\n")[2].partition("\nFROM")[0]
        assert f'"/source[{target}]"' in stage
        assert "USER 10001:10001" in stage
        assert 'ENTRYPOINT ["collegium"]' in stage  # no shell between the runtime and the program
        assert f'CMD ["{command}", "start", "/folder"]' in stage
    assert not re.search(r"COPY .*\.(key|db)|COPY \. ", text)
