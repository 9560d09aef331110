"""Whatever somebody puts into a report about real sites ends in a verdict, never in a traceback; so does its page."""

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.audit.html import page
from privacy.errors import FederationError
from server.evidence import RealRun, predicate
from tests.server import real
from tests.server.real import Scene

NASTY: list[Any] = [
    "",
    "0",
    "x" * 64,
    "AAAA",
    "YWJjCg==",
    "2027-02-30T00:00:00Z",
    "<b>",
    -1,
    0,
    2**53 - 1,
    None,
    [],
    {},
]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[RealRun, dict[str, Any], bytes]:
    run = Scene.of(tmp_path_factory.mktemp("hub")).run()
    return run, *predicate(run, real.SIGNER)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_any_change_to_what_is_claimed(told: tuple[RealRun, dict[str, Any], bytes], data: st.DataObject) -> None:
    run, honest, statements = told
    body = copy.deepcopy(honest)
    here: Any = {"claims": body["claims"][3:], "run": body["run"]}
    while True:
        key = data.draw(st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here)))))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.integers(0, 4)) == 0:
            break
        here = here[key]
    here[key] = copy.deepcopy(data.draw(st.sampled_from(NASTY)))
    try:
        signed = real.forged(body)
        verdict = real.checked(signed, run, statements)
        drawn = page.render(signed)
    except FederationError:
        return
    assert verdict.lines()
    assert drawn.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize("checkpoint", ["AAAA", "YWJjCgo=", "YWJjCgr_", "4oCUCg=="])
def test_a_page_is_drawn_of_any_checkpoint(told: tuple[RealRun, dict[str, Any], bytes], checkpoint: str) -> None:
    run, body, statements = told
    body = copy.deepcopy(body)
    body["claims"][-1]["checkpoint"] = checkpoint
    try:
        signed = real.forged(body)
    except FederationError:
        return
    assert page.render(signed).startswith(b"<!DOCTYPE html>")
    assert real.checked(signed, run, statements).exit_code == 1
