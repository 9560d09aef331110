"""One federation is founded a session; every test gets its own copy."""

from pathlib import Path

import pytest

from tests.clients.invited import Parties
from tests.federation import Federation, federate


@pytest.fixture(scope="session")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("founded") / "north")


@pytest.fixture
def parties(founded: Federation, tmp_path: Path) -> Parties:
    return Parties(founded.copied(tmp_path / "north"))
