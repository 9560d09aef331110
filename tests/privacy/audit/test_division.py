"""Reports of a divided model: honest ones hold, and what does not fit parts, regions or the sums opened is found.

The transcript comes from the real machines; what the regions of an attempt must be is written down here by hand.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from privacy.audit import consistency, division, masked_rounds, report, statement
from privacy.audit.html import page
from privacy.audit.verify import Verdict, verify
from privacy.errors import ConfigError
from privacy.secagg.context import Block, Region
from tests.privacy.audit import ledgers, masked, parted, sample
from tests.privacy.audit.test_page import Document

Edit = Callable[[dict[str, Any]], object]
ROUNDS, PARTS = "secagg.rounds", "report.consistency"


def full(data: bytes, transcript: bytes | None = None, beside: bytes | None = None) -> Verdict:
    return verify(
        data,
        trusted={sample.KEY.public_key},
        model_sha256=sample.MODEL_SHA256,
        transcript=transcript or parted.signed_rounds(),
        ledgers=beside,
    )


def failed(verdict: Verdict) -> dict[str, str]:
    return {claim.id: claim.why for claim in verdict.claims if claim.verdict == "fails"}


def claim(body: dict[str, Any]) -> Any:
    return next(one for one in body["claims"] if one["id"] == ROUNDS)


def found(body: dict[str, Any]) -> list[str]:
    return consistency.of_all(statement.decode(statement.encode(body, sample.MODEL_SHA256)))


# Honest reports


@pytest.mark.parametrize("make", [parted.predicate, parted.shared_noise])
def test_an_honest_report_holds_and_so_does_its_page(make: Callable[[], dict[str, Any]]) -> None:
    body = make()
    data = parted.signed(body)
    for version in (data, page.render(data)):
        verdict = full(version, beside=ledgers.behind(body))
        assert verdict.exit_code == 0, verdict.lines()


def test_the_claim_names_every_sum_that_was_opened() -> None:
    opened = [one["regions"] for one in claim(parted.predicate())["attempts"]]
    assert opened == [
        [{"holders": 4, "entries": 8}, {"holders": 3, "entries": 4}],
        [{"holders": 3, "entries": 8}],  # VA was silent: the outer region has two holders and is not sent
        [],
        [{"holders": 4, "entries": 8}],
        [],
    ]
    (why,) = (one.why for one in full(parted.signed()).claims if one.id == ROUNDS)
    assert "3 sums over 3 or 4 sites, each sum of a region over at least 3 sites" in why
    assert "of 4 sites at least 3 in a sum, 3 in that of a region, threshold 3" in why
    assert "region" not in masked_rounds.summary(masked.predicate()["claims"][-2])


def test_a_cohort_that_shrinks_merges_regions() -> None:
    """Without Switzerland the three others hold the same: one sum, as long as both regions."""
    whole = Region(parted.WIDE, (Block(12, 1000),))
    fewer = masked.attempt(5, cohort=parted.WIDE, regions=(whole,))
    records = (*parted.records(), fewer)
    body = parted.predicate()
    body["claims"][-2] = masked_rounds.claim_of(masked.written(records))
    body["run"].update(rounds=5, completed=4)
    body["rounds"].append({**body["rounds"][0], "round": 5, "answered": list(parted.WIDE)})
    body = sample.told(body)
    assert found(body) == []
    assert full(parted.signed(body), masked.written(records)).exit_code == 0
    still(body, 5, [1])
    assert found(sample.told(body)) == [
        "the sums opened are not as long as the regions, or the model, that they are sums of"
    ]


def test_a_stopped_run_may_leave_sums_of_a_round_that_is_not_listed() -> None:
    body = parted.predicate()
    body["run"].update(status="stopped", skipped=0)
    body["rounds"].pop()
    for region in body["submodels"]["regions"]:
        region["still"] -= 1
    assert found(sample.told(body)) == []


# Signed lies. What is changed, which claim then fails, and what is said.


def still(body: dict[str, Any], number: int, regions: list[int]) -> None:
    """Changes which regions stood still, and counts them as an honest report would."""
    body["rounds"][number - 1]["still"] = regions
    for k, region in enumerate(body["submodels"]["regions"]):
        region["still"] = sum(k in entry["still"] for entry in body["rounds"])


def two_floors(body: dict[str, Any]) -> None:
    body["submodels"].update(floor=4, slack=-1)


def regions(body: dict[str, Any]) -> Any:
    return body["submodels"]["regions"]


def parts(body: dict[str, Any]) -> Any:
    return body["submodels"]["parts"]


def baselines(body: dict[str, Any]) -> Any:
    return body["submodels"]["baselines"]


def sums(body: dict[str, Any], attempt: int) -> Any:
    return claim(body)["attempts"][attempt]["regions"]


def swap_baselines(body: dict[str, Any]) -> None:
    two = baselines(body)
    two["smallest"], two["strong"] = two["strong"], two["smallest"]


LIES: dict[str, tuple[str, str, Edit]] = {
    "a region said to have moved": (ROUNDS, "not those of the regions that moved", lambda b: still(b, 2, [])),
    "a region said to have rested": (ROUNDS, "not those of the regions that moved", lambda b: still(b, 1, [1])),
    "another region rested": (ROUNDS, "not those of the regions that moved", lambda b: still(b, 3, [0])),
    "a whole model": (
        ROUNDS,
        "not those of the regions that moved",
        lambda b: (b.update(submodels=None), [entry.update(still=[]) for entry in b["rounds"]]),
    ),
    "one parameter more": (ROUNDS, "not as long as the regions", lambda b: regions(b)[1].update(parameters=5)),
    "one parameter less everywhere": (
        ROUNDS,
        "not as long as the regions",
        lambda b: [region.update(parameters=region["parameters"] - 1) for region in regions(b)],
    ),
    "another holder of a region": (
        ROUNDS,
        "not those of the regions that moved",
        lambda b: (regions(b)[1].update(holders=["cleveland", "hungary", "switzerland", "va"]), regions(b).pop(0)),
    ),
    "a higher floor": (ROUNDS, "the floor is 4, but the masked rounds promise 3", two_floors),
    "less uploaded": (ROUNDS, "what part narrow uploads", lambda b: parts(b)[1].update(upload_bytes=63)),
    "half as much uploaded": (
        ROUNDS,
        "what part whole uploads",
        lambda b: [part.update(upload_bytes=part["upload_bytes"] // 2) for part in parts(b)],
    ),
    "more in a sum": (ROUNDS, "not those of the regions", lambda b: sums(b, 1)[0].update(holders=4)),
    "a longer sum": (ROUNDS, "not as long", lambda b: sums(b, 1)[0].update(entries=9)),
    "twice as long a sum": (ROUNDS, "not as long", lambda b: sums(b, 3)[0].update(entries=16)),
    "longer sums everywhere": (
        ROUNDS,
        "uploads is not what its regions take",
        lambda b: [
            region.update(entries=2 * region["entries"]) for one in claim(b)["attempts"] for region in one["regions"]
        ],
    ),
    "a sum hidden": (ROUNDS, "not those of the regions", lambda b: sums(b, 0).pop()),
    "a sum invented": (ROUNDS, "not those of the regions", lambda b: sums(b, 3).append({"holders": 3, "entries": 4})),
    "a sum of an aborted attempt": (
        ROUNDS,
        "is aborted and has survivors, or sums",
        lambda b: sums(b, 2).append({"holders": 3, "entries": 4}),
    ),
    "fewer rounds at rest": (
        PARTS,
        "is said to have stood still in 2 rounds, but 3",
        lambda b: regions(b)[1].update(still=2),
    ),
    "more rounds at rest": (
        PARTS,
        "is said to have stood still in 2 rounds, but 1",
        lambda b: regions(b)[0].update(still=2),
    ),
    "an unknown region at rest": (PARTS, "or are not there", lambda b: b["rounds"][1].update(still=[2])),
    "a region at rest twice": (PARTS, "repeat one", lambda b: b["rounds"][1].update(still=[1, 1])),
    "a skipped round that moved something": (PARTS, "round 4 was skipped, but 1 regions", lambda b: still(b, 4, [1])),
    "a completed round that moved nothing": (PARTS, "round 3 was completed, but 2", lambda b: still(b, 3, [0, 1])),
    "at rest without parts": (PARTS, "round 2 names regions that stood still", lambda b: b.update(submodels=None)),
    "another slack": (PARTS, "the slack is 1", lambda b: b["submodels"].update(slack=1)),
    "more than the model has": (
        PARTS,
        "more parameters than the model",
        lambda b: b["claims"][0].update(parameters=11),
    ),
    "regions out of order": (PARTS, "not sorted by their holders", lambda b: regions(b).reverse()),
    "a region twice": (PARTS, "or two have the same", lambda b: regions(b)[1].update(holders=list(masked.SITES))),
    "holders out of order": (PARTS, "not sorted by their holders", lambda b: regions(b)[1]["holders"].reverse()),
    "a stranger holds a region": (
        PARTS,
        "a site that took no part",
        lambda b: regions(b)[0]["holders"].append("wessex"),
    ),
    "a site in no part": (PARTS, "do not share out the sites", lambda b: parts(b)[0]["sites"].pop()),
    "a site in two parts": (PARTS, "do not share out the sites", lambda b: parts(b)[1]["sites"].append("va")),
    "two parts of one name": (PARTS, "do not share out the sites", lambda b: parts(b)[1].update(name="whole")),
    "sites of a part that hold different regions": (
        PARTS,
        "the sites of part whole do not hold the same",
        lambda b: regions(b)[1]["holders"].pop(),
    ),
    "a part smaller than its regions": (
        PARTS,
        "part whole has fewer parameters",
        lambda b: parts(b)[0].update(parameters=11),
    ),
    "a part scored elsewhere": (PARTS, "part narrow is scored at", lambda b: parts(b)[1].update(scored_at=["wessex"])),
    "baselines swapped": (PARTS, "the first baseline is not everybody on the smallest", swap_baselines),
    "the smallest part without a site": (
        PARTS,
        "the first baseline is not",
        lambda b: baselines(b)["smallest"]["sites"].pop(),
    ),
    "the largest part for everybody": (
        PARTS,
        "the first baseline is not",
        lambda b: baselines(b)["smallest"].update(part="whole"),
    ),
    "not the strong sites": (PARTS, "the second baseline is not", lambda b: baselines(b)["strong"]["sites"].pop()),
    "no word of the strong sites": (PARTS, "could train alone", lambda b: baselines(b).update(strong=None)),
    "a baseline scored elsewhere": (
        PARTS,
        "a baseline is scored at",
        lambda b: baselines(b)["strong"]["scored_at"].append("x"),
    ),
    "no masks": (
        PARTS,
        "secure aggregation was off",
        lambda b: (b["protections"].update(secagg=False), b.update(claims=b["claims"][:1])),
    ),
}


@pytest.mark.parametrize(("claim_id", "said", "edit"), LIES.values(), ids=LIES.keys())
def test_a_lie_about_parts_is_not_signed_and_is_found(claim_id: str, said: str, edit: Edit) -> None:
    body = parted.predicate()
    edit(body)
    assert said in "; ".join(found(copy.deepcopy(body)))
    with pytest.raises(ConfigError, match="contradicts itself"):
        report.sign(body, sample.MODEL_SHA256, sample.KEY)
    verdict = full(sample.forged(body))
    assert verdict.authentic
    assert verdict.exit_code == 1
    assert claim_id in failed(verdict)


def test_a_model_without_parameters_is_no_model() -> None:
    body = masked.predicate()
    body["claims"][0].update(parameters=0)
    with pytest.raises(ConfigError, match="claims/0/parameters: 0 is less than the minimum of 1"):
        statement.encode(body, sample.MODEL_SHA256)


def test_sums_that_fit_the_report_but_not_the_transcript_fail() -> None:
    """A consistent lie: the outer region had one entry more, in parts, uploads, model and sums alike."""
    body = parted.predicate()
    regions(body)[1].update(parameters=5)
    parts(body)[0].update(parameters=15, upload_bytes=104)
    body["claims"][0].update(parameters=15)
    claim(body)["attempts"][0]["regions"][1].update(entries=5)
    body = sample.told(body)
    assert found(body) == []
    verdict = full(sample.forged(body))
    assert failed(verdict) == {ROUNDS: "'attempts' is not what the transcript proves"}


def test_a_sum_over_fewer_holders_than_its_cover_is_found() -> None:
    """Two hospitals hold the outer region, and all papers agree that it was opened."""
    body = parted.predicate()
    two = ["hungary", "va"]
    parts(body)[0].update(sites=two, scored_at=two)
    parts(body)[1]["sites"].insert(0, "cleveland")
    regions(body)[1].update(holders=two)
    baselines(body).update(strong=None)
    body["submodels"].update(slack=-1)
    sums(body, 0)[1].update(holders=2)
    assert found(sample.told(body)) == ["round 1, attempt 1 opened a sum of a region over fewer than 3 sites"]


def test_shares_are_counted_where_the_holders_are_fewest() -> None:
    body = parted.shared_noise()
    decoded = statement.decode(statement.encode(body, sample.MODEL_SHA256))
    assert division.sure_shares(decoded, claim(body)) == 2
    shared = body["claims"][1]
    shared["hypothetical"][1]["counted"], shared["hypothetical"][2]["counted"] = False, True
    assert "3 strangers' shares are counted on, the masked rounds promise 2" in found(body)


@pytest.mark.parametrize(
    ("n", "holders", "least"),
    [(10, [10], 7), (10, [10, 5], 5), (10, [10, 9], 6), (10, [8, 8], 5), (4, [4, 3], 3), (4, [4], 3)],
)
def test_the_fewest_holders_of_a_sum(n: int, holders: list[int], least: int) -> None:
    """Of 10 sites 3 may be lost, and 5 must hold a region; of 4 sites 1 may be lost, and 3 must hold it (§2.2)."""
    limits = {10: {"min_survivors": 7, "min_cover": 5}, 4: {"min_survivors": 3, "min_cover": 3}}[n]
    cohort = {"sites": [f"s{k}" for k in range(n)], **limits}
    assert division.fewest_holders([[f"s{k}" for k in range(size)] for size in holders], cohort) == least


# The page


@pytest.fixture(scope="module")
def drawn() -> bytes:
    return page.render(parted.signed())


def test_the_page_tells_of_parts_regions_and_baselines(drawn: bytes) -> None:
    document = Document(drawn)
    for phrase in (
        "Averaged over the sites, a site's part of the common model scores 81.2 %.",
        "together: a site's part of the common model",
        "Parts of the model, and who trained them",
        "Regions: 2 sets of parameters, each held by the same sites and summed by itself; fewest holders 3",
        "a sum takes 3, zero slack: one missing holder makes such a region stand still.",
        "Stood still, parameters as they were: region 0 (8 parameters of 4 sites) in 1 of 4 rounds, region 1 (4",
        "Region 1, 3 sites: cleveland, hungary, va",
        "4 parameters, still in 3 of 4 rounds",
        "whole cleveland, hungary, va 14 96 B (100.0 %) 79.4 %",
        "narrow switzerland 10 64 B (66.7 %) 87.5 %",
        "everyone on narrow cleveland, hungary, switzerland, va 83.9 %",
        "whole sites alone cleveland, hungary, va 79.0 %",
        "on the test rows of the sites that hold it, since each keeps some parameters to itself.",
        "Everyone on the smallest model does better here: 83.9 % against 79.9 % with the divided model, at the same",
        "The sites with the largest model alone do worse here: 79.0 % against 79.4 % with the largest part",
        "The server sees sums of regions of the model, each over at least 3 of 4 sites; in league with 1",
        "1 1 4: cleveland, hungary, switzerland, va 2 sums of regions opened, over 3 or 4",
        "2 1 3: cleveland, hungary, switzerland va: no answer within 10 s completed; at rest: region 1",
        "3 attempts, over 2 different sets of sites",
    ):
        assert phrase in document.text, phrase
    assert (document.wrong, document.open) == ([], [])
    assert "trained without privacy" not in document.text


def test_the_bars_are_as_wide_as_parameters_as_dark_as_holders_and_hatched_for_rest(drawn: bytes) -> None:
    bars = [one for one in Document(drawn).named("rect") if one.get("class") == "region"]
    assert [(bar["width"], bar["fill-opacity"]) for bar in bars] == [("100.00%", "1.00"), ("50.00%", "0.80")]
    hatched = [one["width"] for one in Document(drawn).named("rect") if one.get("fill") == "url(#at-rest)"]
    assert hatched == ["25.00%", "37.50%"]  # one of four rounds, three of four


def test_a_page_with_shared_noise_says_where_shares_are_counted_and_that_baselines_have_none() -> None:
    text = Document(page.render(parted.signed(parted.shared_noise()))).text
    assert "as are counted on, 2 where the holders are fewest" in text
    assert "if that many shares were there where the holders are fewest, and in proportion in every other" in text
    assert "Baselines are trained without privacy, the divided model with it." in text


def test_a_whole_model_has_no_such_section() -> None:
    text = Document(page.render(sample.signed(masked.predicate()))).text
    for absent in ("Parts of the model", "region", "stood still"):
        assert absent not in text


def test_a_strange_division_is_still_drawn() -> None:
    body = parted.predicate()
    hostile = "</script><b>x"
    parts(body)[0].update(name=hostile, upload_bytes=0, score=[None])
    parts(body)[1].update(upload_bytes=0)
    baselines(body)["strong"].update(part=hostile, score=None)
    body["rounds"] = []
    document = Document(page.render(sample.forged(body)))
    assert hostile in document.text
    assert (document.wrong, document.open) == ([], [])
    assert len(document.named("script")) == 1
