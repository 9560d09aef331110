"""What a coordinator claims of sites' ledgers: their own word where it fits the plan, the worst where it does not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from privacy.dp.plan import SitePlan
from server.claims import PrivacyClaim, Spent, claims_of
from tests.privacy.secagg.parties import identity
from tests.server.real import N_TRAIN, SITES, Scene

UNITS = {site: N_TRAIN[site] for site in SITES}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene.of(tmp_path_factory.mktemp("hub"), "record")


def of(scene: Scene, debits: Any, **changes: Any) -> PrivacyClaim:
    """The claim where VA lists other debits."""
    run = scene.run()
    va = replace(scene.statement("va"), debits=debits).sign(changes.pop("key", identity("va")))
    claims = claims_of(scene.job, scene.charter, UNITS, 3, {**run.statements, SITES[3]: va}, **changes)
    return claims[0]


def executions(claim: PrivacyClaim) -> list[int]:
    return [spent.executions for spent in claim.spent.values()]


def test_a_site_is_believed_about_debits_of_its_own_plan(scene: Scene) -> None:
    assert claims_of(scene.job, scene.charter, UNITS, 3, scene.run().statements) == scene.run().claims
    debits = scene.statement("va").debits
    assert executions(of(scene, debits[:1])) == [3, 3, 3, 1]
    assert list(of(scene, ()).spent) == list(SITES[:3])


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "more noise than planned": lambda event: {**event, "noise_multiplier": "50"},
    "no event": lambda _: "an event",
    "of another mechanism": lambda event: {**event, "mechanism": "laplace"},
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_anything_else_counts_as_every_attempt(scene: Scene, edit: Callable[[dict[str, Any]], Any]) -> None:
    first = scene.statement("va").debits[0]
    claim = of(scene, ({**first, "event": edit(dict(first["event"]))},))
    assert executions(claim) == [3, 3, 3, 3]
    assert claim.spent["va"].plan == scene.plan("va")


def test_so_does_a_statement_of_another_key_or_none(scene: Scene) -> None:
    assert executions(of(scene, (), key=identity("hungary"))) == [3, 3, 3, 3]
    claims = claims_of(scene.job, scene.charter, UNITS, 2, {})
    assert executions(claims[0]) == [2, 2, 2, 2]


def test_exact_noise_is_claimed_where_the_site_says_so(scene: Scene) -> None:
    first = scene.statement("va").debits[0]
    claim = of(scene, ({**first, "event": {**first["event"], "arithmetic": "integer_exact"}},))
    assert [event.to_json().get("arithmetic") for event in claim.spent["va"].events] == ["integer_exact"]
    assert "arithmetic" not in claim.spent["cleveland"].events[0].to_json()


def test_the_servers_own_noise_is_a_claim_of_its_own(scene: Scene) -> None:
    plan = SitePlan.calibrated(
        target=scene.job.epsilon, delta=scene.job.delta, clip=scene.plan("va").clip, max_attempts=3
    )
    claims = claims_of(replace(scene.job, privacy=()), scene.charter, UNITS, 3, {}, Spent(plan, (plan.event(3),)))
    assert [claim.placement for claim in claims] == ["central"]


def test_nobody_paid_nothing_is_claimed(tmp_path: Path) -> None:
    plain = Scene.of(tmp_path)
    assert claims_of(plain.job, plain.charter, UNITS, 3, plain.run().statements) == ()
