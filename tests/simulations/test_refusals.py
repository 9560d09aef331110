"""Parts and agents that the rest of a job cannot serve: each refused once, with one line and one hint."""

from collections.abc import Mapping
from typing import Any

import pytest

from privacy.errors import ConfigError
from simulations.job import resolve
from simulations.options import PRIVACY, Options
from strategies.refusals import check_plan
from strategies.regions import Plan
from strategies.sub_models import keys

PARTS = "hospitals-parts"
SCIKIT = {"agent.va": "scikit-learn"}
BY_SITE = {"unit": "site"}


@pytest.mark.parametrize(
    ("options", "line", "hint"),
    [
        (
            {"settings": SCIKIT},
            "the scikit-learn agent of va cannot offer record-level privacy: it shows no gradients per record",
            "--privacy site",
        ),
        (
            {"privacy": "none", "strategy": "fedprox", "settings": SCIKIT},
            "the scikit-learn agent of va takes plain steps only: the strategy corrects every step",
            "--strategy fedavg",
        ),
        (
            {"scenario": PARTS, "privacy": "none", "secagg": False},
            "sub-models are summed under masks only",
            "--no-secagg",
        ),
        (
            {"scenario": PARTS, "privacy": "none", "strategy": "fedadam"},
            "fedadam moves parts of a model that nobody trained in a round: it does not pair with sub-models",
            "fedavg or fedprox",
        ),
        (
            {"scenario": PARTS, "privacy": "distributed", "settings": {"local_steps": "1", "batch": "0"}},
            "--privacy distributed sums records of the whole model: sub-models take it by site",
            "--set unit=site",
        ),
    ],
    ids=["agent without record privacy", "agent without corrections", "no masks", "strategy", "unit"],
)
def test_what_cannot_be_served_is_refused(options: Mapping[str, Any], line: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(Options(**options))
    assert str(caught.value) == line
    assert hint in caught.value.hint
    assert len(caught.value.lines()) == 2


@pytest.mark.parametrize("privacy", PRIVACY)
@pytest.mark.parametrize("unit", ["", "record", "site"])
def test_a_scenario_that_can_protect_no_record_protects_none(privacy: str, unit: str) -> None:
    one_step = {"local_steps": "1", "batch": "0"}
    options = Options(
        scenario="hospitals-flamby", privacy=privacy, settings=one_step | ({"unit": unit} if unit else {})
    )
    if (privacy, unit) in {("none", ""), ("site", ""), ("distributed", "site")}:
        assert resolve(options).privacy == tuple(name for name in privacy.split("+") if name != "none")
        return
    with pytest.raises(ConfigError, match=r"moves all others|unit goes with|protects records twice"):
        resolve(options)


def test_a_model_of_which_nothing_could_be_summed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """No scenario file can say this (parts of a file are nested), so the plan is another one: two pairs of sites."""
    job = resolve(Options(scenario=PARTS, privacy="none"))
    layout = job.plan.layout
    halves = [keys(layout, ["0.*"]), keys(layout, ["2.*"])]
    plan = Plan(layout, {site: halves[place % 2] for place, site in enumerate(job.sites)})
    monkeypatch.setitem(vars(job), "plan", plan)
    with pytest.raises(ConfigError, match="no part of the model is held by 3 sites: nothing could be summed") as caught:
        check_plan(job)
    assert caught.value.hint == "Let more sites hold the same part."


@pytest.mark.parametrize(
    "options",
    [
        {"scenario": PARTS, "privacy": "none"},
        {"scenario": PARTS, "privacy": "none", "strategy": "fedprox"},
        {"scenario": PARTS, "privacy": "record"},
        {"scenario": PARTS, "privacy": "site"},
        {"privacy": "none", "secagg": False},
        {"privacy": "none", "strategy": "fedadam"},
        {"privacy": "distributed", "settings": {"local_steps": "1", "batch": "0"}},
        {"privacy": "distributed", "settings": {**SCIKIT, **BY_SITE}},
        {"privacy": "site", "settings": SCIKIT},
    ],
)
def test_what_can_be_served_is_not(options: Mapping[str, Any]) -> None:
    assert resolve(Options(**options)).sites
