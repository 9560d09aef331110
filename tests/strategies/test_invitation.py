"""An invitation: every bit of it signed, one spelling, read by nobody wrongly, resolved by all to the same job."""

import base64
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from decimal import Decimal
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from privacy.audit import canonical
from privacy.audit.envelope import pae
from privacy.charter.document import Floors
from privacy.dp.plan import Unit
from privacy.errors import ConfigError, FederationError, RemoteProtocolError, VerificationError
from privacy.secagg.context import thresholds
from strategies.invitation import (
    MAX_BYTES,
    TRAINING_PARAMETERS,
    Invitation,
    open_invitation,
    resolve_invited,
    resolve_job,
)
from strategies.registry import ALGORITHMS
from tests.privacy.charter import example
from tests.strategies.studied import DIVIDED, HUB, SITES, STUDY, invitation, job, study

KEY = HUB.public_key
SETTINGS = [
    ((), Unit.RECORD),
    (("record",), Unit.RECORD),
    (("site",), Unit.SITE),
    (("distributed",), Unit.RECORD),
    (("distributed",), Unit.SITE),
    (("record", "distributed"), Unit.SITE),
]


def resigned(body: Mapping[str, Any]) -> bytes:
    """What a coordinator without scruples would sign."""
    text = canonical.dumps(body)
    signature = HUB.sign(pae("application/vnd.collegium.invitation+json", text))
    return canonical.dumps({"invitation": body, "signature": base64.b64encode(signature).decode()})


def body_of(data: bytes) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(data)["invitation"]
    return body


@pytest.mark.parametrize("text", [STUDY, DIVIDED], ids=["whole", "divided"])
def test_whatever_is_proposed_every_site_resolves_to_the_same_job(text: str) -> None:
    of, refused = study(text), 0
    for strategy, (privacy, unit) in product(ALGORITHMS, SETTINGS):
        try:
            proposed = job(strategy, of=of, privacy=privacy, unit=unit)
        except ConfigError:
            refused += 1
            continue
        read = open_invitation(invitation(proposed, to=of).signed(HUB), KEY)
        resolved = resolve_invited(study(text), read)
        assert resolved.digest == proposed.digest == read.job
        assert (resolved.task, resolved.algorithm, resolved.agents) == (
            proposed.task,
            proposed.algorithm,
            proposed.agents,
        )
        assert (resolved.sites, resolved.privacy, resolved.unit) == (proposed.sites, proposed.privacy, proposed.unit)
        assert resolved.plan.digest == proposed.plan.digest
        assert np.array_equal(resolved.initial, proposed.initial)
        assert resolved.secagg
    assert refused < len(ALGORITHMS) * len(SETTINGS)


def test_what_was_signed_is_what_is_read() -> None:
    sent = invitation(job("fedprox", privacy=("record",)))
    read = open_invitation(sent.signed(HUB), KEY)
    assert replace(read, parameters=dict(read.parameters)) == sent
    assert read.signed(HUB) == sent.signed(HUB)


def test_every_number_of_the_training_and_the_strategy_is_told() -> None:
    for strategy, kind in ALGORITHMS.items():
        one = job(strategy)
        told = invitation(one).parameters
        assert set(told) == {*TRAINING_PARAMETERS, "clip", "update_clip", *vars(kind())}
        assert all(float(value) == getattr(one.task.training, name, None) for name, value in told.items() if name in
                   {*TRAINING_PARAMETERS, "clip", "update_clip"})  # fmt: skip
        rest = {name: getattr(one, name) for name in ("seed", "privacy", "unit", "epsilon", "delta")}
        again = resolve_job(study(), strategy, told, sites=one.sites, **rest)
        assert again.digest == one.digest


def test_the_charter_is_asked_about_all_of_it_but_clips_which_its_privacy_terms_have() -> None:
    one = job("fedprox", privacy=("site",), unit=Unit.SITE)
    sent = invitation(one)
    proposal = sent.proposal(one, (), Floors(3, 3, 2, 3))
    assert set(proposal.parameters) == {*TRAINING_PARAMETERS, "mu"}
    assert (proposal.cohort, proposal.thresholds) == (tuple(sorted(SITES)), thresholds(5))
    names = ("charter", "application", "study", "strategy", "purpose", "asset")
    assert all(getattr(proposal, name) == getattr(sent, name) for name in names)
    (terms,) = proposal.privacy
    assert one.sum_plan is not None
    assert (terms.setting, terms.epsilon, terms.delta) == ("site", Decimal("1.5"), Decimal("0.001"))
    assert (terms.clip, terms.noise) == (one.sum_plan.clip, one.sum_plan.noise_multiplier)
    assert sent.proposal(replace(one, secagg=False), (), Floors(3, 3, 2, 3)).thresholds is None


CHANGES: dict[str, Any] = {
    "federation": "south",
    "run": "second",
    "charter": "00" * 32,
    "application": "00" * 32,
    "study": "00" * 32,
    "job": "00" * 32,
    "strategy": "fedadam",
    "parameters": {"rounds": "9"},
    "sites": ["alba", "brno", "cork"],
    "seed": 8,
    "privacy": ["record"],
    "unit": "site",
    "epsilon": "9",
    "delta": "0.009",
    "secagg": False,
    "purpose": "marketing",
    "asset": "lungs",
}


def test_there_is_a_change_for_every_field() -> None:
    assert set(CHANGES) == {field.name for field in fields(Invitation)}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_is_signed(name: str) -> None:
    outer = json.loads(invitation(job()).signed(HUB))
    assert outer["invitation"][name] != CHANGES[name]
    outer["invitation"][name] = CHANGES[name]
    with pytest.raises(VerificationError):
        open_invitation(canonical.dumps(outer), KEY)


@pytest.mark.parametrize(
    "name",
    [name for name in CHANGES if name not in {"federation", "run", "charter", "application", "purpose", "asset"}],
)
def test_a_coordinator_that_signs_one_thing_and_says_another_is_found_out(name: str) -> None:
    """Every field that decides the job must lead to the job that is named."""
    body = body_of(invitation(job()).signed(HUB))
    with pytest.raises(FederationError):
        resolve_invited(study(), open_invitation(resigned({**body, name: CHANGES[name]}), KEY))


def test_nobody_else_signs_for_the_coordinator_and_no_other_kind_of_text_counts() -> None:
    sent = invitation(job())
    with pytest.raises(VerificationError):
        open_invitation(sent.signed(example.key("a stranger")), KEY)
    body = body_of(sent.signed(HUB))
    for kind in ("application/vnd.in-toto+json", "application/vnd.collegium.charter+json", ""):
        signature = base64.b64encode(HUB.sign(pae(kind, canonical.dumps(body)))).decode()
        with pytest.raises(VerificationError):
            open_invitation(canonical.dumps({"invitation": body, "signature": signature}), KEY)


@pytest.mark.parametrize(
    "spell",
    [
        lambda text: text + " ",
        lambda text: text.replace(":", ": ", 1),
        lambda text: '{"signature":"",' + text[1:],
        lambda text: text.replace('"seed":7', '"seed":7.0'),
        lambda text: text.replace('"seed":7', '"seed":07'),
        lambda text: text.replace('"seed":7', '"seed":7,"seed":7'),
        lambda text: text.replace("alba", "\\u0061lba"),
        lambda text: text.replace("alba", "al\\u202eba"),
        lambda text: text[:-1] + ',"more":1}',
        lambda text: text.replace('"invitation":{', '"invitation":{"aaa":1,'),
        lambda text: text.replace("invitation/v1", "invitation/v2"),
        lambda _: "",
        lambda _: "[]",
        lambda _: '{"invitation":[],"signature":""}',
        lambda _: "[" * 100_000,
        lambda text: text.replace("first", "f" * MAX_BYTES),
    ],
)
def test_there_is_one_spelling(spell: Any) -> None:
    data = invitation(job()).signed(HUB)
    open_invitation(data, KEY)
    with pytest.raises((RemoteProtocolError, VerificationError)):
        open_invitation(spell(data.decode()).encode(), KEY)


DATA = invitation(job("fedprox", privacy=("record",))).signed(HUB)
ODD = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53) + 1, 2**53 - 1) | some.text(max_size=8)
    | some.sampled_from(["", "NaN", "Infinity", "-1", "0", "1e9", "1E+400", "1.50", "01", "fedavg", "patient", "alba"]),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.text(max_size=4), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(place=some.integers(0, len(DATA) - 1), flip=some.integers(1, 255), cut=some.integers(0, 3))
def test_no_damaged_invitation_is_read(place: int, flip: int, cut: int) -> None:
    damaged = bytearray(DATA)
    damaged[place] ^= flip
    del damaged[place + 1 : place + 1 + cut]
    with pytest.raises((RemoteProtocolError, VerificationError)):
        open_invitation(bytes(damaged), KEY)


@settings(max_examples=300, deadline=None)
@given(name=some.sampled_from(sorted(CHANGES)), odd=ODD)
def test_whatever_a_coordinator_signs_is_refused_in_words_or_means_what_it_says(name: str, odd: Any) -> None:
    try:
        data = resigned({**body_of(DATA), name: odd})
    except ConfigError:  # canonical JSON cannot say it
        return
    try:
        read = open_invitation(data, KEY)
    except (RemoteProtocolError, VerificationError):
        return
    try:
        resolved = resolve_invited(study(), read)
    except FederationError:
        return
    assert resolved.digest == read.job


@settings(max_examples=100, deadline=None)
@given(name=some.sampled_from(sorted(body_of(DATA)["parameters"])), value=some.decimals())
def test_a_number_is_what_was_agreed_or_refused(name: str, value: Decimal) -> None:
    body = body_of(DATA)
    body["parameters"][name] = str(value)
    try:
        resolved = resolve_invited(study(), open_invitation(resigned(body), KEY))
    except FederationError:
        return
    assert resolved.digest == body["job"]


@pytest.mark.parametrize("text", ["03", "3.0e0", "+3", "3E+0", " 3", "\uff13", "NaN", "1E+31", ""])
def test_a_number_has_one_spelling(text: str) -> None:
    body = body_of(DATA)
    body["parameters"]["rounds"] = text
    with pytest.raises(RemoteProtocolError):
        open_invitation(resigned(body), KEY)
