"""Ensemble answers with noise: drop-outs are allowed, every agent pays over all askers, exhausted is refused."""

import secrets
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.joint.hub import Mean
from clients.joint.terms import Queries, Scores
from privacy.errors import ConfigError, QuorumError, SensitivityError
from privacy.secagg import wire
from privacy.store.answers import ANSWERS_ASSET, ANSWERS_CLAIM
from tests.clients.joint.scene import AGENTS, CLASSES, NOISE, Scene, clinics, queries


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    return Scene(clinics(tmp_path_factory.mktemp("noise") / "fed", noise=NOISE))


def ask(scene: Scene, x: Queries, asker: str = "alba", deadline: float = 20.0) -> Mean:
    hub = scene.hub(asker)
    try:
        return hub.ask(x, next(scene.numbers), deadline)
    finally:
        hub.close()


@pytest.mark.parametrize("silent", ["", "cork"])
def test_the_noise_is_that_of_the_shares_whoever_drops_out(scene: Scene, silent: str) -> None:
    x = queries(100)
    left = [site for site in AGENTS if site != silent]
    scene.silent = {silent: 2} if silent else {}
    try:
        mean = ask(scene, x, deadline=5.0 if silent else 20.0)
    finally:
        scene.silent = {}
    assert mean.agents == len(left)
    terms = scene.terms("alba")
    assert terms.shares is not None
    noise = mean.scores * terms.grid * len(left) - scene.plain_sum(x, *left)
    expected = np.sqrt(len(left) * terms.shares.share_variance())
    # 300 entries: the empirical deviation is within a quarter of the true one but for once in 10^9 times.
    assert expected * 0.75 < noise.std() < expected * 1.25
    assert (
        expected >= 5 * terms.shares.l2
    )  # the multiplier, also without the share of a colluder and of whoever drops out


def test_every_agent_pays_over_all_askers_and_says_so(scene: Scene) -> None:
    before = spent(scene)
    for asker in ("alba", "brno"):
        ask(scene, queries(10), asker)
    after = spent(scene)
    for site in AGENTS:
        assert after[site] == before[site] + 20
        debits = scene.federation.folders[site].ledger().debits(ANSWERS_ASSET)
        assert {debit.claim for debit in debits} == {ANSWERS_CLAIM}
        assert debits[-1].event == scene.terms("brno").event(10)


def test_an_agent_that_cannot_pay_sends_no_vector_and_the_others_answer(scene: Scene) -> None:
    ledger = scene.service("dole").desk.ledger
    reserve = ledger.reserve

    def full(_debits: object) -> tuple[()]:
        raise ConfigError("the disk is full")

    ledger.reserve = full  # type: ignore[method-assign,assignment]
    try:
        assert ask(scene, queries()).agents == 3
    finally:
        ledger.reserve = reserve  # type: ignore[method-assign]
    assert [wire.decode(message.body).kind for message in scene.taps["dole"].sent] == ["ADV", "SHR"]


def test_an_exhausted_budget_is_refused_for_every_asker_and_nothing_leaves(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    scene = Scene(clinics(tmp_path_factory.mktemp("poor") / "fed", noise={**NOISE, "epsilon": "8"}))
    answered = asked_until_refused(scene)
    assert 1 <= answered < 20
    assert not any(tap.sent for tap in scene.taps.values())
    for asker in AGENTS:
        with pytest.raises(QuorumError, match="epsilon"):
            ask(scene, queries(20), asker)
    for site in AGENTS:
        assert spent(scene)[site] == 20 * answered
        decisions = [
            entry.record.content
            for entry in scene.federation.folders[site].log().entries()
            if entry.record.kind == "channel-decision"
        ]
        assert not decisions[-1]["allowed"]


def test_what_a_batch_costs_is_priced_from_the_shares_that_are_sure(scene: Scene) -> None:
    terms = scene.terms("alba")
    shares = terms.shares
    assert shares is not None
    assert shares.counted == terms.thresholds.min_survivors - terms.thresholds.n_c == 2
    # At so fine a grid Skellam costs what a Gaussian does; one released 1, 10 and 50 times at z = 5: .79, 2.8, 7.1.
    for n_queries, expected in ((1, 0.79), (10, 2.8), (50, 7.1)):
        assert terms.epsilon(n_queries) == pytest.approx(expected, rel=0.02)


vectors = st.lists(st.floats(0, 1), min_size=CLASSES, max_size=CLASSES).filter(lambda entries: sum(entries) > 0.1)


@given(vectors, vectors, st.integers(1, 1000), st.integers(1, 1000))
def test_no_two_score_vectors_are_further_apart_than_the_noise_covers(
    scene: Scene, one: list[float], other: list[float], own: int, others: int
) -> None:
    terms = replace(scene.terms("alba"), weights={**dict.fromkeys(AGENTS, others), "alba": own})
    shares = terms.shares
    assert shares is not None
    quiet = replace(terms, noise=None)
    quiet.__dict__["grid"] = terms.grid  # the same grid, without the shares
    a, b = (quiet.units(distribution(entries), "alba", secrets.token_bytes) for entries in (one, other))
    for contribution in (a, b):
        assert contribution.min() >= 0
        assert int(contribution.sum()) * max(own, others) <= terms.grid * own
    assert int(((a - b) ** 2).sum()) <= 2 * terms.grid**2 <= shares.l2**2
    assert int(abs(a - b).sum()) <= shares.l1


@given(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1), st.integers(1, 1000))
def test_the_farthest_score_vectors_of_the_heaviest_agent_are_as_far_apart_as_that(
    scene: Scene, one: int, other: int, weight: int
) -> None:
    terms = replace(scene.terms("alba"), weights={**dict.fromkeys(AGENTS, 1), "alba": weight}, noise=None)
    a, b = (terms.units(np.eye(CLASSES)[[place]], "alba", secrets.token_bytes) for place in (one, other))
    assert int(((a - b) ** 2).sum()) == (2 * terms.grid**2 if one != other else 0)


def distribution(entries: list[float]) -> Scores:
    """A score vector, shape ``(1, k)``."""
    return (np.array(entries) / sum(entries))[None]


def test_scores_that_are_no_distribution_never_become_a_contribution(scene: Scene) -> None:
    terms = scene.terms("alba")
    for bad in ([0.9, 0.9, 0.9], [2.0, 0.0, 0.0], [-0.1, 0.6, 0.5], [np.nan, 0.5, 0.5], [0.5, 0.5]):
        with pytest.raises(SensitivityError):
            terms.units(np.array([bad]), "alba", secrets.token_bytes)


def asked_until_refused(scene: Scene) -> int:
    """Asks in turn; returns how many batches were answered before the first refusal."""
    for answered in range(100):
        with suppress(QuorumError):
            ask(scene, queries(20), AGENTS[answered % 4])
            continue
        return answered
    raise AssertionError("a budget without end")


def spent(scene: Scene) -> dict[str, int]:
    """Queries that each agent's ledger holds as paid for."""
    return {site: scene.federation.folders[site].ledger().executed(ANSWERS_ASSET) for site in AGENTS}
