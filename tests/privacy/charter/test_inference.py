"""The terms of joint answers and the list of chains: strict, shown to officers, absent from older charters."""

import hashlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from privacy.audit import canonical
from privacy.charter.document import from_body, parse
from privacy.charter.draft import from_draft
from privacy.charter.words import changes, lines
from privacy.errors import ConfigError
from tests.privacy.charter.example import CHARTER, SITES, body, following

EXAMPLE = (Path(__file__).parents[3] / "docs" / "examples" / "charter-hospitals.toml").read_text(encoding="utf-8")
DRAFT = """
[chains]
digits = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee"

[inference]
agents = ["va", "hungarian", "cleveland"]
modes = ["local", "ensemble"]
purposes = ["diagnosis"]
most_queries = 1000

[inference.noise]
multiplier = 8
epsilon = 4
delta = 0.001
"""


def noise(**changed: str) -> dict[str, str]:
    return {"multiplier": "5", "epsilon": "4", "delta": "0.001", **changed}


def terms(**changed: Any) -> dict[str, Any]:
    return {
        "agents": list(SITES),
        "weights": {"alba": 3, "brno": 1, "cork": 1, "dole": 1},
        "modes": ["ensemble", "local"],
        "purposes": ["diagnosis"],
        "most_queries": 1000,
        "noise": None,
        **changed,
    }


CHAINS = {"digits": "ee" * 32}
WITH = from_body(body(chains=CHAINS, inference=terms()))


def test_it_is_read_as_it_was_written() -> None:
    again = parse(WITH.payload)
    assert again == WITH
    assert again.chains == CHAINS
    assert again.inference is not None
    assert (again.inference.agents, again.inference.weights["alba"]) == (SITES, 3)
    assert (again.inference.modes, again.inference.purposes) == (("ensemble", "local"), ("diagnosis",))
    assert (again.inference.most_queries, again.inference.noise) == (1000, None)
    noised = from_body(body(inference=terms(noise=noise()))).inference
    assert noised is not None
    assert noised.noise is not None
    assert (noised.noise.multiplier, noised.noise.epsilon, noised.noise.delta) == tuple(
        map(Decimal, ("5", "4", "0.001"))
    )


def test_a_charter_without_them_is_what_it_was_before_there_were_any() -> None:
    assert (CHARTER.chains, CHARTER.inference) == ({}, None)
    assert hashlib.sha256(canonical.dumps(body())).hexdigest() == CHARTER.digest
    assert {b"chains", b"inference"} & set(CHARTER.payload.split(b'"')) == set()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no chain": ({"chains": {}}, "valid charter-v1"),
    "chain without a digest": ({"chains": {"digits": "ee"}}, "valid charter-v1"),
    "chain with an odd name": ({"chains": {"Digits!": "ee" * 32}}, "valid charter-v1"),
    "no terms": ({"inference": {}}, "valid charter-v1"),
    "null": ({"inference": None}, "valid charter-v1"),
    "surprise": ({"inference": terms(surprise=1)}, "valid charter-v1"),
    "two agents": (
        {"inference": terms(agents=["alba", "brno"], weights={"alba": 1, "brno": 1})},
        "2 agents are too few",
    ),
    "agents out of order": ({"inference": terms(agents=["brno", "alba", "cork", "dole"])}, "agents are not sorted"),
    "agent twice": ({"inference": terms(agents=["alba", "alba", "brno", "cork", "dole"])}, "agents are not sorted"),
    "stranger": (
        {"inference": terms(agents=[*SITES, "evil"], weights={**terms()["weights"], "evil": 1})},
        "evil is no site",
    ),
    "server": (
        {"inference": terms(agents=["alba", "brno", "hub"], weights={"alba": 1, "brno": 1, "hub": 1})},
        "hub is no site",
    ),
    "no weight": ({"inference": terms(weights={"alba": 1, "brno": 1, "cork": 1})}, "exactly the agents"),
    "weight of a stranger": ({"inference": terms(weights={**terms()["weights"], "evil": 1})}, "exactly the agents"),
    "weight 0": ({"inference": terms(weights={**terms()["weights"], "alba": 0})}, "valid charter-v1"),
    "half a weight": ({"inference": terms(weights={**terms()["weights"], "alba": "0.5"})}, "valid charter-v1"),
    "one outweighs all": ({"inference": terms(weights={**terms()["weights"], "alba": 4})}, "alba weighs more than"),
    "no mode": ({"inference": terms(modes=[])}, "valid charter-v1"),
    "unknown mode": ({"inference": terms(modes=["vote"])}, "valid charter-v1"),
    "mode twice": ({"inference": terms(modes=["local", "local"])}, "modes are not sorted"),
    "purposes out of order": ({"inference": terms(purposes=["b", "a"])}, "purposes are not sorted"),
    "no purpose": ({"inference": terms(purposes=[])}, "valid charter-v1"),
    "no rows": ({"inference": terms(most_queries=0)}, "valid charter-v1"),
    "noise in name only": ({"inference": terms(noise=noise(multiplier="0.09"))}, "noise 0.09 is less"),
    "epsilon 101": ({"inference": terms(noise=noise(epsilon="101"))}, "inference: epsilon 101"),
    "epsilon 0": ({"inference": terms(noise=noise(epsilon="0"))}, "inference: epsilon 0"),
    "delta 0.02": ({"inference": terms(noise=noise(delta="0.02"))}, "inference: delta 0.02"),
    "noise without a cost": ({"inference": terms(noise={"multiplier": "5"})}, "valid charter-v1"),
}


@pytest.mark.parametrize(("changed", "said"), WRONG.values(), ids=WRONG.keys())
def test_terms_that_break_a_rule_cannot_be_built(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as info:
        from_body(body(**changed))
    assert all(line.isprintable() for line in info.value.lines())


@pytest.mark.parametrize("missing", terms())
def test_every_key_is_required(missing: str) -> None:
    given = terms()
    del given[missing]
    with pytest.raises(ConfigError, match="charter-v1"):
        from_body(body(inference=given))


SHOWN: dict[str, dict[str, Any]] = {
    "chain": {"chains": {"digits": "00" * 32}},
    "chain's name": {"chains": {"letters": "ee" * 32}},
    "agents": {"inference": terms(agents=["alba", "brno", "cork"], weights={"alba": 2, "brno": 1, "cork": 1})},
    "weights": {"inference": terms(weights=dict.fromkeys(SITES, 1))},
    "modes": {"inference": terms(modes=["local"])},
    "purposes": {"inference": terms(purposes=["research"])},
    "most queries": {"inference": terms(most_queries=1001)},
    **{
        f"noise's {name}": {"inference": terms(noise=noise(**{name: "0.005"} if name != "multiplier" else {name: "6"}))}
        for name in noise()
    },
}


@pytest.mark.parametrize("changed", SHOWN.values(), ids=SHOWN.keys())
def test_every_change_is_shown(changed: dict[str, Any]) -> None:
    noised = any(part["noise"] for part in [changed.get("inference")] if part)
    before = from_body(body(chains=CHAINS, inference=terms(noise=noise() if noised else None)))
    told = changes(before, from_body(body(version=2, previous=before.digest, **{**_same(before), **changed})))
    assert told
    assert {line[0] for line in told} <= {"-", "+"}


def _same(before: Any) -> dict[str, Any]:
    return {"chains": before.body["chains"], "inference": before.body["inference"]}


def test_that_they_are_there_or_gone_is_shown() -> None:
    appeared = changes(CHARTER, following(CHARTER, chains=CHAINS, inference=terms()))
    assert [line[:8] for line in appeared] == ["+ Chain ", "+ Answer", "+   of  ", "+   nois"]
    gone = changes(WITH, following(WITH))
    assert len(gone) == len(appeared)


def test_a_person_can_read_it() -> None:
    told = lines(WITH)
    assert "Answers      ensemble, local for diagnosis; at most 1000 a batch" in told
    assert "  of         alba (weight 3), brno (weight 1), cork (weight 1), dole (weight 1)" in told
    assert "  noise      none: a sum of scores is of all of them, or nobody is answered" in told
    noised = lines(from_body(body(inference=terms(noise=noise()))))
    assert any("an agent's answers cost it at most epsilon 4 at delta 0.001 in all" in line for line in noised)


def test_a_draft_sorts_its_lists_and_lets_everybody_count_once() -> None:
    charter = from_draft(EXAMPLE + DRAFT)
    found = charter.inference
    assert found is not None
    assert found.noise is not None
    assert charter.chains == {"digits": "ee" * 32}
    assert found.agents == ("cleveland", "hungarian", "va")
    assert (dict(found.weights), found.modes) == (dict.fromkeys(found.agents, 1), ("ensemble", "local"))
    assert (found.noise.multiplier, found.noise.epsilon) == (Decimal(8), Decimal(4))
    assert found.most_queries == 1000
    silent = from_draft(EXAMPLE + DRAFT.split("[inference.noise]", maxsplit=1)[0]).inference
    assert silent is not None
    assert silent.noise is None
    heavier = DRAFT.replace("most_queries", "weights = { va = 2, hungarian = 1, cleveland = 1 }\nmost_queries")
    weighed = from_draft(EXAMPLE + heavier).inference
    assert weighed is not None
    assert weighed.weights["va"] == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"va", ', '"va", "va", '),
        ('agents = ["va", "hungarian", "cleveland"]', 'agents = "va"'),
        ('agents = ["va", "hungarian", "cleveland"]', "agents = [1, 2, 3]"),
        ('agents = ["va", "hungarian", "cleveland"]', 'agents = ["va", 2, "cleveland"]'),
        ('agents = ["va", "hungarian", "cleveland"]', 'agents = [["va"], {}]'),
        ("multiplier = 8", "multiplier = true"),
        ("[inference.noise]", "[inference.nois]"),
        ("[inference]", "[[inference]]"),
        ("[chains]", "[chain]"),
    ],
)
def test_a_draft_is_strict(old: str, new: str) -> None:
    assert old in DRAFT
    with pytest.raises(ConfigError):
        from_draft(EXAMPLE + DRAFT.replace(old, new))


def test_the_example_of_the_how_to_can_be_read() -> None:
    page = (Path(__file__).parents[3] / "docs" / "how-to-federation.md").read_text(encoding="utf-8")
    charter = from_draft(EXAMPLE + "\n" + page.split("```toml\n")[1].split("```", maxsplit=1)[0])
    assert charter.inference is not None
    assert all(f"`{word}" in page for word in (*terms(), *noise()) if word != "noise")
