"""The chain of a study: how it is read, what it is in digests, which plan follows, and what it does not go with."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from privacy.errors import ConfigError, PrivacyError
from strategies.chain_job import WHOLE_STEP, chain_of, releases_in_attempt
from strategies.chain_plan import decode_chain_plan
from strategies.release import Crossing, Release, UnsafeRelease
from strategies.study import read_study
from strategies.task import SiteId
from tests.strategies.studied import SITES, STUDY, job, study

OPEN = """
[[chain.releases]]
owner = "*"
to = "hub"
what = ["activations", "gradients"]
unsafe = "made up"
"""
NOISY = OPEN.replace('unsafe = "made up"', "clip = 2.0\nnoise = 4.0\nmost = 50")
CHAIN = '\n[chain]\nholder = "hub"\nfront = "_1"\ntail = "_3"\n'
DEEP = STUDY.replace("hidden = 4", "hidden = [4, 3, 2]")
CUT = DEEP + CHAIN + OPEN
ALBA = SITES[0]


def test_a_study_without_a_chain_is_what_it_was() -> None:
    assert study().chain is None
    assert study().digest == "3105769d7974120f7f0b24561a4ab0c155c47098a0b099a7b4fecfd4c9977577"
    assert job().digest == "48ef051ac2b8badcda84346638865196fc642126847eac0ea5a70bdfea2df31d"


def test_a_chain_is_read_and_is_in_the_digests() -> None:
    chain = study(CUT).chain
    assert chain is not None
    assert (chain.holder, chain.front, chain.tail, chain.micro_batch) == ("hub", "_1", "_3", 0)
    what = frozenset({Crossing.ACTIVATIONS, Crossing.GRADIENTS})
    assert chain.released_by(ALBA) == (UnsafeRelease(ALBA, "hub", what, "made up"),)
    texts = [DEEP, CUT, CUT.replace('"_3"', '"_4"'), CUT.replace("made up", "another"), DEEP + CHAIN + NOISY]
    assert len({study(text).digest for text in texts}) == len(texts)
    assert len({job(of=study(text)).digest for text in texts[:4]}) == 4


def test_a_release_of_one_site_is_that_of_no_other() -> None:
    chain = study(CUT.replace('owner = "*"', 'owner = "alba"')).chain
    assert chain is not None
    assert chain.released_by(ALBA)
    assert chain.released_by(SITES[1]) == ()


def test_sites_hold_the_ends_and_nobody_the_middle() -> None:
    cut = job(of=study(CUT))
    part = cut.part_of(ALBA)
    names = set(part.piece.names)
    assert names == {"0.weight", "0.bias", "4.weight", "4.bias", "6.weight", "6.bias"}
    assert np.array_equal(cut.initial_of(ALBA), cut.initial[part.held])
    (region,) = cut.plan.regions()
    assert region.holders == tuple(SITES)
    assert np.array_equal(region.positions, part.held)
    assert part.held.size < cut.initial.size
    assert (cut.part_name(ALBA), job().part_name(ALBA)) == ("front and tail", "whole")


def test_the_plan_follows_from_the_job_alone() -> None:
    plan = chain_of(job(of=study(CUT)), ALBA)
    assert [(stage.device, stage.start, stage.end) for stage in plan.stages] == [
        ("alba", "", "_1"), ("hub", "_1", "_3"), ("alba", "_3", ""),
    ]  # fmt: skip
    assert (plan.owner, plan.train, plan.micro_batch, plan.optimizer) == ("alba", True, WHOLE_STEP, "sgd")
    assert decode_chain_plan(plan.encode()) == plan
    assert chain_of(job(of=study(CUT)), SITES[1]).digest != plan.digest
    small = chain_of(job(of=study(CUT.replace('tail = "_3"', 'tail = "_3"\nmicro_batch = 8'))), ALBA)
    assert (small.micro_batch, small.in_flight) == (8, 4)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "an unknown node": (CUT.replace('"_3"', '"_9"'), {}, "cannot be cut after '_9'"),
    "cuts out of order": (CUT.replace('"_1"', '"_5"'), {}, "in the order of the model"),
    "no release": (DEEP + CHAIN, {}, "activations of alba would reach hub"),
    "no release of what comes back": (CUT.replace(', "gradients"', ""), {}, "gradients of alba would reach hub"),
    "labels that leave": (CUT.replace('tail = "_3"', ""), {}, "labels of alba would reach hub"),
    "a holder that trains": (CUT.replace('"hub"', '"brno"'), {}, "brno holds the piece between"),
    "corrected steps": (CUT, {"strategy": "fedprox"}, "takes plain steps"),
    "control variates": (CUT, {"strategy": "scaffold"}, "corrects every step"),
    "another agent": (CUT + '[agents.cork]\nkind = "scikit-learn"\n', {}, "give it the torch agent"),
    "drawn batches": (CUT, {"privacy": ("record",), "parameters": {"batch": Decimal(8)}}, "would see which records"),
    "noise without privacy": (DEEP + CHAIN + NOISY, {}, "protects nothing while the weights"),
    "noise beside shares": (
        DEEP + CHAIN + NOISY, {"privacy": ("record", "distributed"), "unit": "site"}, "protects nothing",
    ),
    "too few releases": (
        DEEP + CHAIN + NOISY.replace("50", "5"), {"privacy": ("record",)}, "would leave 10 times, retries included",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "changes", "why"), REFUSED.values(), ids=REFUSED)
def test_what_a_chain_does_not_go_with_is_refused(text: str, changes: dict[str, Any], why: str) -> None:
    named = {**changes}
    with pytest.raises((ConfigError, PrivacyError), match=why):
        job(named.pop("strategy", "fedavg"), of=study(text), **named)


def test_labels_may_leave_in_so_many_words() -> None:
    text = CUT.replace('tail = "_3"', "").replace('"gradients"', '"labels"')
    plan = chain_of(job(of=study(text)), ALBA)
    assert plan.labels_leave
    assert [stage.device for stage in plan.stages] == ["alba", "hub"]


READ = {
    "a holder that is missing": (CUT.replace('holder = "hub"\n', ""), "chain.holder"),
    "an unknown key": (CUT.replace("[chain]", "[chain]\nmiddle = 3"), "unknown key"),
    "a release to a stranger": (CUT.replace('to = "hub"', 'to = "elsewhere"'), "all that crosses goes to 'hub'"),
    "two ways to divide": (CUT + '[submodels]\nprivate = ["6.*"]\n', "divided in one way"),
    "a micro-batch below zero": (CUT.replace('tail = "_3"', 'tail = "_3"\nmicro_batch = -1'), "at least 0"),
}


@pytest.mark.parametrize(("text", "why"), READ.values(), ids=READ)
def test_a_malformed_chain_is_told_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        read_study(text, where="study.toml")


def test_releases_of_an_attempt_are_counted_by_step_and_crossing() -> None:
    text = DEEP + CHAIN + NOISY
    parameters = {"local_steps": Decimal(3), "batch": Decimal(0), "retries": Decimal(1), "rounds": Decimal(2)}
    private = job(of=study(text), privacy=("record",), parameters=parameters)
    (release,) = chain_of(private, ALBA).releases
    assert isinstance(release, Release)
    assert releases_in_attempt(private, ALBA, release) == 6
    fewer = replace(release, what=frozenset({Crossing.ACTIVATIONS, Crossing.LABELS}))
    assert releases_in_attempt(private, SiteId("alba"), fewer) == 3
