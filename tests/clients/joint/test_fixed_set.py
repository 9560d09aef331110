"""Without noise: one set of agents at its weights for ever, one kind of model in a sum; never a difference of two."""

import re
from dataclasses import replace
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clients.joint.hub import Hub
from privacy.charter.inference import AnswerNoise
from privacy.errors import QuorumError
from privacy.secagg.suite import RealSuite
from strategies.study import read_study
from tests.clients.joint.scene import AGENTS, NOISE, Scene, clinics, linear, queries
from tests.clients.joint.test_ensemble import ask, sent_kinds, silent
from tests.federation import Federation

THREE = AGENTS[:3]
EQUAL = dict.fromkeys(THREE, 1)
REFUSED = "alba (weight 1), brno (weight 1), cork (weight 1); anything else needs noise"
OTHERS: dict[str, dict[str, Any]] = {
    "one more": {},
    "another one": {"agents": ["alba", "brno", "dole"], "weights": {"alba": 1, "brno": 1, "dole": 1}},
    "other weights": {"agents": list(THREE), "weights": {"alba": 1, "brno": 2, "cork": 2}},
}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """Three agents that answered once."""
    made = Scene(clinics(tmp_path_factory.mktemp("fixed") / "fed", agents=list(THREE), weights=EQUAL))
    assert ask(made, queries()).agents == 3
    return made.federation


@pytest.fixture
def fixed(founded: Federation, tmp_path: Path) -> Scene:
    return Scene(founded.copied(tmp_path / "fed"), numbers=count(2))


@pytest.mark.parametrize(
    ("change", "asker"),
    [("one more", "alba"), ("one more", "dole"), ("another one", "dole"), ("other weights", "alba")],
)
def test_no_charter_gets_a_second_sum(fixed: Scene, change: str, asker: str) -> None:
    fixed.amend(**OTHERS[change])
    for _ in range(2):
        with pytest.raises(QuorumError) as refused:
            ask(fixed, queries(), asker)
        assert f"{REFUSED}, the charter's [inference.noise]" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert not any(sent_kinds(fixed, site) for site in THREE if site in fixed.taps)
        fixed.services.clear()  # processes that start anew
    fixed.amend(agents=list(THREE), weights=EQUAL)  # the old terms in a third charter
    assert ask(fixed, queries(), asker).agents == 3


def test_another_study_of_the_same_records_gets_none_either(fixed: Scene) -> None:
    """One that lists a site more: settings and records, and so the models, stay the same to the bit."""
    study_says(fixed, "'dole']", "'dole', 'evil']")
    fixed.amend()
    with pytest.raises(QuorumError, match=re.escape(REFUSED)):
        ask(fixed, queries())
    fixed.amend(agents=list(THREE), weights=EQUAL)
    assert ask(fixed, queries()).agents == 3


def test_a_study_that_shrinks_one_agent_s_model_gets_none_either(fixed: Scene) -> None:
    """One unit wide it says next to nothing, so that the difference would be what it said before."""
    wide, narrow = 'kind = "mlp"\nhidden = [8]', '[[submodels.parts]]\nname = "less"\nsites = ["cork"]\nwidth = 0.125'
    study_says(fixed, 'kind = "logistic"', f"{wide}\n\n{narrow}")
    fixed.amend(agents=list(THREE), weights=EQUAL)
    with pytest.raises(QuorumError, match=re.escape(REFUSED)):
        ask(fixed, queries())
    study_says(fixed, f"\n\n{narrow}", "")
    fixed.amend(agents=list(THREE), weights=EQUAL)
    assert ask(fixed, queries()).agents == 3


def study_says(scene: Scene, old: str, new: str) -> None:
    """Has another study put into everybody's folder; the next charter lists it."""
    for site in AGENTS:
        scene.federation.rewrite(site, "study.toml", old=old, new=new)
    scene.federation.study = read_study(scene.federation.folders["alba"].study, where="study.toml")


def test_with_noise_any_charter_s_agents_answer_and_without_it_the_first_ones_again(fixed: Scene) -> None:
    fixed.amend(noise=NOISE)
    assert ask(fixed, queries()).agents == 4
    fixed.amend()
    with pytest.raises(QuorumError, match=re.escape(REFUSED)):
        ask(fixed, queries())
    fixed.amend(agents=list(THREE), weights=EQUAL)
    assert ask(fixed, queries()).agents == 3


def test_a_set_of_which_no_masked_vector_ever_left_is_not_fixed(tmp_path: Path) -> None:
    """An agent that never comes up would silence the others for ever."""
    scene = Scene(clinics(tmp_path / "fed"))
    with silent(scene, "dole", 1), pytest.raises(QuorumError):
        ask(scene, queries(), deadline=0.8)
    assert all("MSK" not in sent_kinds(scene, site) for site in AGENTS)
    scene.amend(agents=list(THREE), weights=EQUAL)
    assert ask(scene, queries()).agents == 3


def test_a_set_is_fixed_before_a_masked_vector_leaves(fixed: Scene) -> None:
    """Two charters' batches at once: whatever both heard when they asked, one of them gets no vector."""
    fixed.amend()
    for site in AGENTS:
        fixed.service(site).desk.answers.check_set = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(QuorumError, match=re.escape(REFUSED)):
        ask(fixed, queries())
    assert all(sent_kinds(fixed, site) == ["ADV", "SHR"] for site in THREE)


@pytest.mark.parametrize("asked", ["home", "run:common"])
def test_home_models_and_a_run_s_are_never_added_up(fixed: Scene, asked: str) -> None:
    """Whoever has the run's model would subtract what its agents said from the sum."""
    fixed.served["brno"] = "run:common"
    hub = Hub(fixed.terms("alba", asked), fixed.open("alba"), RealSuite())
    with pytest.raises(QuorumError) as refused:
        hub.ask(queries(), next(fixed.numbers), 5.0)
    odd, its = ("brno", "run:common") if asked == "home" else ("alba", "home")
    assert f"{odd}: the asker proposes another sum than the charter gives" in str(refused.value)
    assert f"the model {its}" in str(refused.value)
    assert not fixed.taps[odd].sent


def test_weights_hide_an_agent_as_equal_ones_do(tmp_path: Path) -> None:
    """If scores were whole numbers before their weights, the sum modulo 1000 would be alba's, of every query."""
    scene = Scene(clinics(tmp_path / "fed", weights={**dict.fromkeys(AGENTS, 1000), "alba": 1}))
    x, terms = queries(50), scene.terms("brno")
    total = scene.opened(ask(scene, x, "brno").scores).astype(np.int64).reshape(-1)
    for scale in (1, terms.weights["alba"] / 1000):
        own = np.floor(linear("alba")(x) * (terms.grid * scale)).astype(np.int64).reshape(-1)
        assert (total % 1000 == own % 1000).mean() < 0.05  # of 150 entries; by chance one in a thousand
    plain = sum(weight * linear(site)(x) for site, weight in terms.weights.items()) / 3001
    np.testing.assert_allclose(ask(scene, x, "brno").scores, plain, atol=2**-22)


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (1000, 1000, 1, 1), (7, 1000, 999, 1)])
def test_a_coarse_grid_still_tells_weighted_scores_apart(founded: Federation, weights: tuple[int, ...]) -> None:
    """The grid is that of the heaviest: were it shared out in whole units, 1000 of them would leave 819 / 1000 = 0."""
    noise, by_agent = AnswerNoise(Decimal(5), Decimal(100), Decimal("1e-5")), dict(zip(AGENTS, weights, strict=True))
    terms, x = replace(Scene(founded).terms("alba"), agents=AGENTS, weights=by_agent, noise=noise), queries()
    quiet = replace(terms, noise=None)
    quiet.__dict__["grid"] = terms.grid
    total = sum((quiet.units(linear(site)(x), site, bytes) for site in AGENTS), np.zeros(15, np.int64))
    plain = sum(weight * linear(site)(x) for site, weight in terms.weights.items()) / sum(weights)
    np.testing.assert_allclose(terms.mean(total, AGENTS), plain, atol=4 / terms.grid)
