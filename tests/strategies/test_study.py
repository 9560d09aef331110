"""A study: one digest for one meaning, another for another; and nothing but a study is read as one."""

import hashlib
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from privacy.errors import ConfigError
from strategies.study import plain, read_study
from tests.strategies.studied import DIVIDED, SITES, STUDY, study


def test_the_digest_is_that_of_what_the_file_says_in_canonical_json() -> None:
    """Against another encoder: Python's own, which agrees with RFC 8785 where keys are ASCII and nothing is a float."""
    one = study(DIVIDED)
    body = {
        "schema": "collegium/study/v1",
        "name": "clinics",
        "task": plain(asdict(one.task)),
        "sites": list(SITES),
        "division": plain(asdict(one.division)),
        "agents": {"cork": plain(asdict(one.agents[SITES[2]]))},
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert one.digest == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('title = "Illness in five clinics"', 'title = "Another title"'),
        ("clip = 1.0", "clip = 1"),
        ("learning_rate = 0.5\nclip = 1.0", "# spelt otherwise\nclip = 1.00\nlearning_rate = 5e-1"),
        ("hidden = 4", "hidden = [4]"),
        ('name = "clinics"\n', 'name = "clinics"\nlicence = "CC"\nowner = "clinics"\nnotes = "read this"\n'),
        ("[target]", '[data]\nfile = "somewhere.csv"\n\n[split]\ntest = 0.5\n\n[target]'),
    ],
)
def test_another_spelling_of_the_same_study_is_the_same(old: str, new: str) -> None:
    assert old in STUDY
    assert study(STUDY.replace(old, new)).digest == study().digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "clinics"', 'name = "hospitals"'),
        ('"dole", "este"', '"este", "dole"'),
        ('"dole", "este"', '"dole"'),
        ("range = [18, 100]", "range = [18, 101]"),
        ('categories = ["no", "yes"]', 'categories = ["yes", "no"]'),
        ('name = "ill"', 'name = "dead"'),
        ("hidden = 4", "hidden = 5"),
        ('init = "torch"', 'init = "torch"\nexits = true'),
        ("rounds = 3", "rounds = 4"),
        ("clip = 1.0", "clip = 1.1"),
        ("[target]", 'patient = "id"\n\n[target]'),
        ("[target]", "[strategies.fedprox]\nmu = 0.2\n\n[target]"),
        ("clip = 1.0", "clip = 1.0\n[agents.alba]\nlocal_steps = 2"),
        ("clip = 1.0", 'clip = 1.0\n[submodels]\nprivate = ["2.*"]'),
    ],
)
def test_another_meaning_is_another_study(old: str, new: str) -> None:
    assert old in STUDY
    changed = STUDY.replace(old, new)
    if "patient" in new or "strategies" in new:  # they belong before the first table
        changed = new.partition("\n\n[target]")[0] + "\n" + STUDY if "patient" in new else changed
    assert study(changed).digest != study().digest


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "missing"),
        ("name = ", "not valid TOML"),
        ("x = " + "[" * 2000, "not valid TOML"),
        ('based_on = "hospitals"\n' + STUDY, "says everything itself"),
        ("extra = 1\n" + STUDY, "unknown key"),
        (STUDY.replace('"cork", "dole", "este"', ""), "at least 3"),
        (STUDY.replace('"dole", "este"', '"dole", "dole"'), "twice"),
        (STUDY.replace('name = "clinics"\n', ""), "name"),
        (STUDY.replace("sites = [", "sites = [7, "), "sites"),
        (STUDY + '[agents.nobody]\nkind = "torch"', "nobody"),
    ],
)
def test_what_is_no_study_is_refused_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=r"study\.toml") as caught:
        read_study(text, where="study.toml")
    assert why in str(caught.value)
    assert len(caught.value.lines()) <= 2


@settings(max_examples=100, deadline=None)
@given(text=some.text(max_size=60), at=some.integers(0, len(STUDY)), cut=some.integers(0, 40))
def test_no_text_does_more_than_be_refused(text: str, at: int, cut: int) -> None:
    try:
        one = read_study(STUDY[:at] + text + STUDY[at + cut :], where="study.toml")
    except ConfigError:
        return
    assert len(one.digest) == 64


def test_plain_has_no_fraction_left() -> None:
    told: Any = plain({"a": (0.1, float("inf"), 1), 2: [{"b": -0.0}], "c": None, "d": True})
    assert told == {"a": ["0.1", "inf", 1], "2": [{"b": "-0.0"}], "c": None, "d": True}
