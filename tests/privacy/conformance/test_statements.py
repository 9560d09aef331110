"""The server's own path, and what is made of results that are no numbers."""

import hashlib
import math

import numpy as np
import pytest

import privacy.dp.plan
from privacy.conformance import statements
from privacy.conformance.results import certain
from privacy.conformance.sums import NoisedSum
from privacy.conformance.tests import conformance_of, expected
from privacy.errors import PrivacyError
from tests.clients.test_release_path import SITE


class Keys:
    """A different key for every call, the same in every run of the test."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, n_bytes: int) -> bytes:
        self._calls += 1
        return hashlib.sha256(self._calls.to_bytes(8, "big")).digest()[:n_bytes]


def test_the_server_tests_all_of_its_path() -> None:
    (entry,) = statements.read(statements.check_server(SITE, Keys()), who="server")
    assert {(each["test"], each["name"]) for each in entry["tests"]} == expected(
        "central", "integer", poisson=False, noised=True
    )
    assert (entry["site"], entry["placement"], entry["path"]) == ("server", "central", "integer")


def test_a_server_without_noise_may_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(privacy.dp.plan, "rounded_gaussian_exact", lambda _s, n, e: np.zeros(n, np.int64) * len(e(32)))
    with pytest.raises(PrivacyError, match="the server takes no part: its central noise fails A1, noise scale"):
        statements.check_server(SITE, Keys())


def test_a_site_whose_server_adds_the_noise_tests_its_clipping() -> None:
    found = conformance_of(lambda dimension, n_units: NoisedSum(SITE, dimension, n_units), Keys(), noised=False)
    assert {each.test for each in found.tests} == {"A4", "A7"}
    assert found.controls == (("clipping off", True),)


@pytest.mark.parametrize("statistic", [math.nan, math.inf, 1e300])
def test_what_is_no_number_fails_and_can_be_written(statistic: float) -> None:
    found = certain("A4", "largest influence", 1, statistic)
    assert not found.passed
    assert found.to_json()["statistic"] == "1000000000"
