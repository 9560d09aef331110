"""The schemas are valid, closed everywhere, and accept what this project writes."""

import copy
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from privacy.audit import schemas
from privacy.errors import ConfigError
from tests.privacy.audit import masked, parted, promises, sample


def load(name: str) -> dict[str, Any]:
    text = resources.files("privacy.audit").joinpath("schemas", f"{name}.json").read_text(encoding="utf-8")
    schema = json.loads(text)
    assert isinstance(schema, dict)
    return schema


def parts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from parts(item)


@pytest.mark.parametrize("name", schemas.NAMES)
def test_each_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(load(name))


@pytest.mark.parametrize("name", schemas.NAMES)
def test_no_object_admits_unknown_fields(name: str) -> None:
    for part in parts(load(name)):
        if part.get("type") == "object":
            keyed_by_site = isinstance(part.get("additionalProperties"), dict)
            decided_by_id = "allOf" in part  # closed in the branch that its id picks; see the test below
            assert part.get("additionalProperties") is False or keyed_by_site or decided_by_id, part


def test_no_schema_reaches_out() -> None:
    for name in schemas.NAMES:
        assert all(part["$ref"].startswith("#/$defs/") for part in parts(load(name)) if "$ref" in part)


BODIES = {
    "private": sample.predicate(),
    "plain": sample.plain_predicate(),
    "masked": masked.predicate(),
    "promises": promises.predicate(),
    "parts": parted.predicate(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_the_sample_reports_fit(body: dict[str, Any]) -> None:
    schemas.check("privacy-audit-v1", body)


def paths(value: Any, here: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in items:
        yield (*here, key)
        yield from paths(child, (*here, key))


def at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def short() -> dict[str, Any]:
    """The sample with one entry in every list, and every claim."""
    body = masked.predicate(private=True)
    _model, epsilon, tested, chain, masks, _egress = body["claims"]
    body["rounds"] = body["rounds"][3:4]  # the round that somebody missed
    path = tested["sites"][0]
    lists = [(body, "egress"), (body["utility"], "sites"), (epsilon, "sites"), (masks, "attempts")]
    for holder, name in (*lists, (chain, "ledgers"), (tested, "sites"), (path, "tests"), (path, "controls")):
        holder[name] = holder[name][:1]
    return body


FIELDS = [path for path in paths(short()) if isinstance(path[-1], str)]


@pytest.mark.parametrize("path", FIELDS, ids=lambda path: "/".join(map(str, path)))
def test_every_field_of_a_report_is_required(path: tuple[str | int, ...]) -> None:
    body = short()
    del at(body, path[:-1])[path[-1]]
    with pytest.raises(ConfigError):
        schemas.check("privacy-audit-v1", body)


def test_no_part_of_a_report_admits_another_field() -> None:
    objects = [path for path in paths(short()) if isinstance(at(short(), path), dict)]
    for path in [(), *objects]:
        body = short()
        at(body, path)["surprise"] = 1
        with pytest.raises(ConfigError):
            schemas.check("privacy-audit-v1", body)


@pytest.mark.parametrize("wrong", [1.5, ""], ids=str)
def test_every_field_of_a_report_has_a_type(wrong: Any) -> None:
    for path in FIELDS:
        body = short()
        at(body, path[:-1])[path[-1]] = wrong
        with pytest.raises(ConfigError):
            schemas.check("privacy-audit-v1", body)


def numbered(found: dict[str, Any]) -> dict[str, Any]:
    """The sub-models of a report as a summary has them: scores are numbers."""
    for holder in (*found["parts"], *found["baselines"].values()):
        one = holder["score"]
        holder["score"] = [float(value) for value in one] if isinstance(one, list) else float(one)
    return found


BOUNDS: dict[str | int, Any] = {
    "floor": 2, "slack": 101, "parts": [], "regions": [], "sites": [], "holders": [], "scored_at": [], "score": [],
    "parameters": -1, "upload_bytes": -1, "still": -1, "name": "", "part": "",
}  # fmt: skip


@pytest.mark.parametrize("name", ["privacy-audit-v1", "simulate-v1"])
def test_every_field_about_sub_models_is_required_typed_and_closed(name: str) -> None:
    def fits(found: Any) -> bool:
        body = (
            {**parted.predicate(), "submodels": found}
            if name == "privacy-audit-v1"
            else {**SIMULATION, "submodels": found}
        )
        try:
            schemas.check(name, body)
        except ConfigError:
            return False
        return True

    whole = parted.submodels() if name == "privacy-audit-v1" else numbered(parted.submodels())
    assert fits(whole)
    assert fits(None)
    for path in paths(whole):
        wrong: list[Any] = [1.5, True, {}]
        if name == "privacy-audit-v1" and path[-1] in BOUNDS:
            wrong.append(BOUNDS[path[-1]])
        for value in wrong:
            changed = copy.deepcopy(whole)
            at(changed, path[:-1])[path[-1]] = value
            assert not fits(changed), (path, value)
        changed = copy.deepcopy(whole)
        if isinstance(path[-1], str):
            del at(changed, path[:-1])[path[-1]]
            assert not fits(changed), path
        if isinstance(at(changed, path[:-1]), dict):
            at(changed, path[:-1])["surprise"] = 1
            assert not fits(changed), path


@pytest.mark.parametrize("number", ["1e5", "+1", "-1", " 1", "01", ".5", "1.", "NaN", "inf", "1_0", "½", "1" * 19])
def test_only_plain_decimals_are_numbers(number: str) -> None:
    body = sample.predicate()
    body["claims"][1]["delta"] = number
    with pytest.raises(ConfigError, match="claims/1/delta"):
        schemas.check("privacy-audit-v1", body)


def test_an_error_is_one_short_line_that_says_where() -> None:
    body = sample.predicate()
    body["utility"]["sites"][2]["home"] = "x" * 10_000
    with pytest.raises(ConfigError, match="utility/sites/2/home") as caught:
        schemas.check("privacy-audit-v1", body)
    assert len(str(caught.value)) < 350
    assert "\n" not in str(caught.value)


def test_a_claim_is_made_once() -> None:
    for place in range(6):
        body = masked.predicate(private=True)
        body["claims"][place - 1] = body["claims"][place]
        with pytest.raises(ConfigError):
            schemas.check("privacy-audit-v1", body)


LINES = [json.loads(line) for line in masked.signed_rounds().splitlines()]
TRANSCRIPT = {"roster": LINES[0], "signed": LINES[1], "aborted": LINES[7]}


@pytest.mark.parametrize("kind", TRANSCRIPT)
def test_every_line_of_a_transcript_is_closed(kind: str) -> None:
    line = TRANSCRIPT[kind]
    assert line["line"] == kind
    schemas.check("transcript-v1", line)
    for path in [(), *(path for path in paths(line) if isinstance(at(line, path), dict))]:
        changed = copy.deepcopy(line)
        at(changed, path)["Surprise"] = 1
        with pytest.raises(ConfigError):
            schemas.check("transcript-v1", changed)
    named = {"c", "s", "sig", "digests"}  # the others are sites and regions
    for path in paths(line):
        changed = copy.deepcopy(line)
        at(changed, path[:-1])[path[-1]] = 1.5
        with pytest.raises(ConfigError):
            schemas.check("transcript-v1", changed)
        if len(path) == 1 or path[-1] in named:
            changed = copy.deepcopy(line)
            del at(changed, path[:-1])[path[-1]]
            with pytest.raises(ConfigError):
                schemas.check("transcript-v1", changed)


METRICS = {
    "schema": "collegium/metrics/v1",
    "round": 1,
    "attempts": 1,
    "answered": ["va"],
    "missing": [{"site": "cleveland", "reason": "no answer within 10 s"}],
    "skipped": False,
    "still": [],
    "loss": 0.5,
    "seconds": 0.1,
}
SCORES = {"home": 0.7, "elsewhere": 0.6, "together": 0.8, "together_without_privacy": None, "pooled": 0.8}
PRIVACY = {
    "unit": "record",
    "placement": "local",
    "epsilon": 0.9646,
    "delta": 0.001,
    "relation": "replace_special",
    "sampling": "full",
    "accountant": "PLD",
    "noise": 10.6,
}
SIMULATION = {
    "schema": "collegium/simulate/v1",
    "scenario": "hospitals",
    "strategy": "fedavg",
    "seed": 42,
    "rounds": 15,
    "run": "runs/hospitals-1",
    "metric": "accuracy",
    "mean": SCORES,
    "sites": [{"id": "va", "n_train": 85, "n_test": 45, **SCORES, "interval": [0.6, 0.9], "privacy": [PRIVACY]}],
    "left_out": [{"id": "va", "n_test": 45, "score": 0.7, "trained_by": ["cleveland"]}],
    "baselines": {"constant": 0.637, "majority": 0.721},
    "protections": {"secagg": False, "record_dp": True, "site_dp": False, "distributed_dp": False, "tls": False},
    "submodels": None,
    "egress": {"va": {"messages": 16, "bytes": 4976, "unmasked_arrays": 16}},
    "seconds": 4.2,
    "status": "finished",
}


def test_metrics_and_simulation_objects_fit() -> None:
    schemas.check("metrics-v1", METRICS)
    schemas.check("metrics-v1", {**METRICS, "loss": None})
    schemas.check("simulate-v1", SIMULATION)


@pytest.mark.parametrize("key", METRICS)
def test_metrics_need_every_field(key: str) -> None:
    with pytest.raises(ConfigError):
        schemas.check("metrics-v1", {name: value for name, value in METRICS.items() if name != key})


@pytest.mark.parametrize("key", SIMULATION)
def test_simulations_need_every_field(key: str) -> None:
    with pytest.raises(ConfigError):
        schemas.check("simulate-v1", {name: value for name, value in SIMULATION.items() if name != key})


def test_simulations_carry_numbers() -> None:
    with pytest.raises(ConfigError, match="mean/home"):
        schemas.check("simulate-v1", {**SIMULATION, "mean": {**SCORES, "home": "0.7000"}})
