"""One federation for all tests of the channel; whoever changes it copies it first."""

import pytest

from tests.federation import Federation, federate


@pytest.fixture(scope="package")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    return federate(tmp_path_factory.mktemp("channel") / "all", sites=("alba", "brno", "cork"))
