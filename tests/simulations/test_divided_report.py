"""What a run of a divided model tells: closing table, ``--json`` object, signed report, and the limits in it.

One run of the hospitals, of which VA never answers: three hold the outer region, so it never moves.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from privacy.audit import division_words, schemas
from privacy.audit.verify import verify
from simulations.divided import Baseline, Divided, PartFound, RegionFound
from simulations.evidence import predicate, server_view
from simulations.job import resolve
from simulations.options import Options
from simulations.outcome import Outcome
from simulations.summary import submodels, to_json
from strategies.task import SiteId
from tests.simulations import finished


@pytest.fixture(scope="module")
def parted(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("parted") / "run"
    return finished.outcome(folder, "hospitals-parts", rounds=2, settings={"fault.va": "raises"})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return finished.outcome(tmp_path_factory.mktemp("whole") / "run", "hospitals", rounds=1)


def divided(found: Outcome) -> Divided:
    assert found.divided is not None
    return found.divided


def with_privacy(found: Outcome, *privacy: str, private: bool = True) -> Outcome:
    """The same run, as if those settings had been on."""
    division = found.job.division if private else replace(found.job.division, private=())
    return replace(found, job=replace(found.job, privacy=privacy, division=division))


# The closing table


def test_the_closing_table_shows_parts_baselines_and_regions(parted: Outcome) -> None:
    text, found = finished.shown(parted), divided(parted)
    wide, narrow = found.parts
    assert found.strong is not None
    for phrase in (
        "part sites parameters upload score",
        f"whole cleveland, hungarian, va 241 1,792 B (100.0 %) {wide.score[0]:.3f}",
        f"narrow switzerland 61 448 B (25.0 %) {narrow.score[0]:.3f}",
        f"everyone on narrow {found.smallest.score:.3f}",
        f"whole sites alone {found.strong.score:.3f}",
        "together: a site's part of the common model.",
        "Regions: 2 sets of parameters, each held by the same sites and summed by itself; fewest holders 3",
        "a sum takes 3, zero slack: one missing holder makes such a region stand still.",
        "Stood still, parameters as they were: region 1 (168 parameters of 3 sites) in 2 of 2 rounds.",
        "each keeps some parameters to itself.",
    ):
        assert phrase in text, phrase
    assert text.index("Parts of the model") < text.index("What left each site")


def test_a_whole_model_is_told_of_as_ever(whole: Outcome) -> None:
    text = finished.shown(whole)
    assert "together: the common model." in text
    assert "The server sees sums over at least 3 of 4 sites; in league with 1 of them, sums over 2 or more." in text
    for absent in ("Parts of the model", "egion", "stood still", "upload", "slack"):
        assert absent not in text


def parts(*scores: float | None, smallest: float | None, strong: float | None = None, exits: bool = False) -> Divided:
    """Three sites with the large part and one with the small one, all scored at all four."""
    everybody = tuple(map(SiteId, "abcd"))
    large, small = scores
    wide = PartFound("large", everybody[:3], 20, 160, (0.9, large) if exits else (large,), everybody)
    narrow = PartFound("small", everybody[3:], 5, 40, (small,), everybody)
    return Divided(
        parts=(wide, narrow),
        regions=(RegionFound(("a", "b", "c"), 15, 0), RegionFound(("a", "b", "c", "d"), 5, 0)),
        floor=3,
        smallest=Baseline(everybody, smallest, everybody),
        strong=None if strong is None else Baseline(everybody[:3], strong, everybody),
    )


def compared(found: Divided, *, private: bool = False) -> list[str]:
    listed = submodels(found, lambda score: None if score is None else f"{score:.4f}")
    rows = {"a": 10, "b": 20, "c": 30, "d": 40}
    return division_words.about_baselines(listed, rows, str, private=private)


LARGEST = "with the largest part of the divided model"
AT_HOME = "with the divided model, at the same sites"


def test_a_better_baseline_is_called_better() -> None:
    assert compared(parts(0.8, 0.7, smallest=0.85, strong=0.75)) == [
        f"Everyone on the smallest model does better here: 0.8500 against 0.8000 {LARGEST}.",
        f"The sites with the largest model alone do worse here: 0.7500 against 0.8000 {LARGEST}.",
    ]
    (line,) = compared(parts(0.8, 0.7, smallest=0.8, exits=True))
    assert line == (f"Everyone on the smallest model does the same here: 0.8000 against 0.8000 {LARGEST}, last exit.")
    assert compared(parts(0.8, 0.7, smallest=0.85), private=True)[-1] == (
        "Baselines are trained without privacy, the divided model with it."
    )


def test_parts_that_are_scored_at_home_are_weighed_by_test_rows() -> None:
    """60 rows at 0.8 and 40 at 0.7 are 0.76; at the three strong sites it is 0.8."""
    found = parts(0.8, 0.7, smallest=0.765, strong=0.79)
    own = tuple(replace(part, scored_at=part.sites) for part in found.parts)
    assert found.strong is not None
    strong = replace(found.strong, scored_at=found.strong.sites)
    assert compared(replace(found, parts=own, strong=strong)) == [
        f"Everyone on the smallest model does better here: 0.7650 against 0.7600 {AT_HOME}.",
        f"The sites with the largest model alone do worse here: 0.7900 against 0.8000 {LARGEST}.",
    ]


def test_one_part_has_nothing_to_be_compared_with() -> None:
    found = parts(0.8, 0.7, smallest=0.9)
    assert compared(replace(found, parts=found.parts[:1])) == []


def test_a_score_that_is_no_number_is_not_compared() -> None:
    assert compared(parts(None, 0.7, smallest=0.9, strong=0.9)) == []
    (line,) = compared(parts(0.8, 0.7, smallest=None, strong=0.9))
    assert line.startswith("The sites with the largest model alone do better")


@pytest.mark.parametrize(
    ("floor", "said"),
    [
        (3, "zero slack: one missing holder makes such a region stand still."),
        (2, "slack 1: so many holders may be missing before a region stands still."),
        (4, "a region with fewer holders is never summed and keeps its initial values."),
    ],
)
def test_slack_in_words(floor: int, said: str) -> None:
    found = replace(parts(0.8, 0.7, smallest=0.9), floor=floor)
    listed = submodels(found, lambda score: f"{score:.4f}")
    assert division_words.about_regions(listed).endswith(f"fewest holders 3, a sum takes {floor}, {said}")
    lines = division_words.about_slack(listed)
    assert len(lines) == {3: 1, 2: 0, 4: 2}[floor]
    assert floor != 4 or "fewer holders than the 4 sites that a sum takes: 1 of 2." in lines[0]


def test_many_regions_at_rest_are_cut_short() -> None:
    found = parts(0.8, 0.7, smallest=0.9)
    many = tuple(RegionFound((f"s{k}",), 1000 * k, 1) for k in range(1, 8))
    listed = submodels(replace(found, regions=many), lambda score: f"{score:.4f}")
    line = division_words.about_still(listed, 3)
    assert "region 4 (5\u202f000 parameters of 1 site) in 1 of 3 rounds, and 2 more regions." in line
    assert len(line) < 400


# The object of --json


def test_the_summary_fits_its_schema(parted: Outcome, whole: Outcome) -> None:
    result = to_json(parted)
    schemas.check("simulate-v1", result)
    found = result["submodels"]
    assert found["parts"][1]["sites"] == ["switzerland"]
    assert found["parts"][0]["score"] == [pytest.approx(divided(parted).parts[0].score[0], abs=1e-6)]
    assert (found["floor"], found["slack"]) == (3, 0)
    assert [region["still"] for region in found["regions"]] == [0, 2]
    assert (found["baselines"]["smallest"]["part"], found["baselines"]["strong"]["part"]) == ("narrow", "whole")
    schemas.check("simulate-v1", to_json(whole))
    assert to_json(whole)["submodels"] is None


# The signed report


def test_the_report_of_a_run_holds(parted: Outcome, whole: Outcome) -> None:
    for run in (parted, whole):
        folder = Path(run.folder)
        verdict = verify(
            (folder / "report.html").read_bytes(),
            self_signed=True,
            transcript=(folder / "transcript" / "secagg.jsonl").read_bytes(),
        )
        assert {claim.id for claim in verdict.claims if claim.verdict != "holds"} == {"model.digest"}, verdict.lines()


def test_metrics_and_report_name_the_same_regions(parted: Outcome, whole: Outcome) -> None:
    for run, still in ((parted, [[1], [1]]), (whole, [[]])):
        lines = [json.loads(line) for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines()]
        for line in lines:
            schemas.check("metrics-v1", line)
        body = predicate(run, model_sha256="0" * 64, signer={}, cosigners={})
        assert [line["still"] for line in lines] == [entry["still"] for entry in body["rounds"]] == still


def test_a_round_that_moved_nothing_of_a_whole_model_names_no_region(whole: Outcome) -> None:
    record, loss = whole.trained.rounds[0]
    rounds = ((replace(record, still=(0,)), loss),)
    body = predicate(
        replace(whole, trained=replace(whole.trained, rounds=rounds)), model_sha256="0" * 64, signer={}, cosigners={}
    )
    assert body["rounds"][0]["still"] == []


LIMITS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "no noise": (
        (),
        (
            "only distributed noise would protect, and this run had none.",
            "Private parameters never leave their site: only it sees them.",
        ),
        ("noise of its site's own steps", "are in no sum", "same noisy steps"),
    ),
    "at the server": (
        ("site",),
        ("and this run had none.", "They are in no sum, so no epsilon of noise in the sum is about them."),
        ("same noisy steps", "noise of its site's own steps"),
    ),
    "in steps": (
        ("record",),
        (
            "this run had none. What protects a record even then is the noise of its site's own steps.",
            "They are trained in the same noisy steps as the rest, and covered by the epsilon of those steps.",
        ),
        ("are in no sum",),
    ),
    "in shares": (
        ("distributed",),
        ("only distributed noise protects a site's update.", "They are in no sum, so no epsilon"),
        ("this run had none",),
    ),
    "in both": (
        ("record", "distributed"),
        ("protects a site's update. What protects a record even then", "are in no sum", "same noisy steps"),
        ("this run had none",),
    ),
}


def limits(found: Outcome) -> list[str]:
    """What the report of a run says about its limits."""
    signed = (Path(found.folder) / "transcript" / "secagg.jsonl").read_bytes()
    body = predicate(found, model_sha256="0" * 64, signer={}, cosigners={}, transcript=signed)
    return [*body["not_protected"], *body["assumptions"]]


@pytest.mark.parametrize(("privacy", "said", "unsaid"), LIMITS.values(), ids=LIMITS.keys())
def test_the_limits_of_a_divided_model_are_said(
    parted: Outcome, privacy: tuple[str, ...], said: tuple[str, ...], unsaid: tuple[str, ...]
) -> None:
    lines = limits(with_privacy(parted, *privacy))
    text = " ".join(lines)
    always = (
        "The server sees sums of regions of the model, each over at least 3 of 4 sites; in league with 1 of them",
        "Regions with no more holders than the 3 sites that a sum takes: 1 of 2 (zero slack).",
        "Stood still, parameters as they were: region 1 (168 parameters of 3 sites) in 2 of 2 rounds.",
        "a malicious server could send some of them values with which the update of a single other site stands out",
        "holds against a server that follows the protocol; against one that does not",
    )
    for phrase in (*always, *said):
        assert phrase in text, phrase
    for phrase in unsaid:
        assert phrase not in text, phrase
    assert all(len(line) <= 400 for line in lines)


def test_nothing_of_that_is_said_of_a_whole_model(whole: Outcome) -> None:
    text = " ".join([*limits(whole), server_view(whole)])
    for absent in ("egion", "sub-model", "Private parameters", "slack"):
        assert absent not in text


def test_without_private_parameters_none_are_named(parted: Outcome) -> None:
    assert "Private parameters" not in " ".join(limits(with_privacy(parted, private=False)))


def test_private_parameters_alone_are_no_unequal_sub_models(parted: Outcome) -> None:
    """All four hold the same region: sums are over as many as ever, and no server can play one part off another."""
    found = divided(parted)
    alone = replace(
        parted,
        divided=replace(found, regions=(RegionFound(("cleveland", "hungarian", "switzerland", "va"), 224, 0),)),
    )
    text = " ".join(limits(alone))
    assert "Private parameters never leave their site" in text
    assert "The server sees sums over at least 3 of 4 sites" in text
    assert "malicious" not in text


def test_what_the_server_sees_counts_the_weakest_region(parted: Outcome) -> None:
    """Ten agents: seven make a sum, but five of the region that only the strong ones hold (docs/protocol.md §2.2)."""
    job = resolve(Options(scenario="digits-width", privacy="none"))
    roster = replace(parted.trained.roster, nodes={site: k for k, site in enumerate(job.sites)})
    ten = replace(parted, job=job, trained=replace(parted.trained, roster=roster))
    assert server_view(ten).startswith(
        "The server sees sums of regions of the model, each over at least 5 of 10 sites; in league with 3 of them, sums"
        " over 2 or more."
    )
    assert server_view(replace(ten, divided=None)).startswith("The server sees sums over at least 7 of 10 sites")
