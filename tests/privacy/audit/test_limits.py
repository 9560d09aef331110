"""What a report must say about its limits follows from the rest of it; leaving any of it out is found."""

from collections.abc import Callable
from typing import Any

import pytest

from privacy.audit import limits, report
from privacy.audit.html import page
from privacy.audit.statement import Statement
from privacy.audit.verify import Verdict, verify
from privacy.errors import ConfigError
from tests.privacy.audit import masked, parted, promises, sample
from tests.privacy.audit.test_page import Document, first_screen

Body = dict[str, Any]
NAMES = ("not_protected", "assumptions")
RUNS: dict[str, Callable[[], Body]] = {
    "noise at each site": sample.predicate,
    "neither noise nor masks": sample.plain_predicate,
    "masks": masked.predicate,
    "noise everywhere": promises.predicate,
    "noise at the server": lambda: promises.predicate("central"),
    "noise in shares": lambda: promises.predicate("distributed"),
    "parts": parted.predicate,
    "parts and noise in shares": parted.shared_noise,
}


def said(body: Body) -> str:
    return " ".join(line for name in NAMES for line in body[name])


def consistency_of(body: Body) -> tuple[str, str]:
    return next((one.verdict, one.why) for one in checked(body).claims if one.id == "report.consistency")


def checked(body: Body) -> Verdict:
    return verify(sample.forged(body), trusted={sample.KEY.public_key}, model_sha256=sample.MODEL_SHA256)


@pytest.mark.parametrize("body", [make() for make in RUNS.values()], ids=RUNS)
def test_leaving_any_line_out_is_found_and_not_signed(body: Body) -> None:
    assert consistency_of(body)[0] == "holds"
    for name in NAMES:
        for line in body[name]:
            less = {**body, name: [one for one in body[name] if one != line] or ["Nothing."]}
            assert consistency_of(less) == ("fails", f"'{name}' leaves out what follows from the rest: {line}")
            with pytest.raises(ConfigError, match="leaves out what follows"):
                report.sign(less, sample.MODEL_SHA256, sample.KEY)


SAYS: dict[str, tuple[str, ...]] = {
    "noise at each site": (
        "The server sees every site's single update",
        "floating-point",
        "A patient with several records, or in several hospitals",
        "without TLS: this is a simulation",
    ),
    "neither noise nor masks": (
        "No differential privacy was applied",
        "The server sees every site's single update",
        "nor who holds the key that signed this report",
    ),
    "masks": (
        "The server sees sums over at least 3 of 4 sites; in league with 1 of them, sums over 2 or more.",
        "No differential privacy was applied",
        "none that is listed as aborted opened a sum",
    ),
    "noise at the server": (
        "the claim does not hold against the server",
        "The unit is the site",
        "Every site clipped its update as agreed",
    ),
    "noise in shares": ("one share fewer counts", "drew their shares of the noise honestly"),
    "parts": (
        "The server sees sums of regions of the model, each over at least 3 of 4 sites",
        "(zero slack)",
        "Stood still, parameters as they were: region 0",
        "a malicious server could send some of them values",
        "this run had none.",
    ),
    "parts and noise in shares": (
        "only distributed noise protects a site's update.",
        "gets a smaller share of noise from each",
    ),
}


@pytest.mark.parametrize("name", SAYS)
def test_every_run_says_what_it_leaves_open(name: str) -> None:
    text = said(RUNS[name]())
    for phrase in SAYS[name]:
        assert phrase in text, phrase


def test_exact_noise_and_drawn_batches_are_told_by_the_events() -> None:
    body = promises.predicate("local")
    assert "drawn as exact integers" in said(sample.told(body))
    (claim,) = [one for one in body["claims"] if one["id"] == "privacy.epsilon"]
    for event in (one for entry in claim["sites"] for one in entry["events"]):
        del event["arithmetic"]
        event["sampling"] = {"type": "poisson", "rate": "0.1"}
    claim["delta"] = "0.02"
    text = said(sample.told(body))
    assert "floating-point" in text
    assert "Nobody outside a site learns which of its records entered a batch." in text
    assert "Delta is not below 1/N at every site" in text


def test_real_sites_are_told_other_limits_than_a_simulation() -> None:
    body = masked.predicate(private=True)
    body["run"]["engine"] = "sites"
    text = said(sample.told(body))
    for phrase in (
        "the network can see",
        "it signs what it says it did",
        "What a site computes and keeps",
        "The officers' keys are those of the officers",
        "and none that is listed as aborted opened a sum",
    ):
        assert phrase in text, phrase
    assert "simulation" not in text


def test_of_cohorts_that_shrank_the_one_with_the_smallest_sum_is_told() -> None:
    body = masked.predicate()
    (claim,) = [one for one in body["claims"] if one["id"] == "secagg.rounds"]
    claim["cohorts"].append({**claim["cohorts"][0], "sites": list(masked.SITES[:3]), "n_c": 0, "min_survivors": 2})
    assert "The server sees sums over at least 2 of 3 sites" in sample.told(body)["not_protected"][0]


LIE = "Nothing. Every person is fully anonymous towards everybody, the coordinator included."
SEAL = "None: verified and certified by the national authority."


def test_a_signer_s_own_words_are_told_as_such_by_verifier_and_page() -> None:
    body = sample.predicate()
    assert consistency_of({**body, "not_protected": [LIE], "assumptions": [SEAL]})[0] == "fails"
    body["not_protected"].insert(0, LIE)
    body["assumptions"].insert(0, SEAL)
    verdict, why = consistency_of(body)
    assert verdict == "holds"
    assert why.endswith("; 2 lines about limits in the words of whoever signed, which nobody checks")
    assert limits.own_words(Statement("", "", body), "not_protected") == [LIE]
    data = page.render(sample.forged(body))
    caption = "And, in the words of whoever signed, which nobody checks:"
    assert f"{caption} {LIE}" in first_screen(data)
    assert f"{caption} {SEAL}" in Document(data).text
    assert caption not in Document(page.render(sample.signed())).text


def test_what_is_contradicted_elsewhere_is_told_first() -> None:
    body = sample.predicate()
    body["protections"]["secagg"] = True
    assert "secure aggregation is on exactly when" in consistency_of(body)[1]
