"""docs/privacy-audit.md: commands exist, words and numbers are those of the code that it speaks of."""

import json
import math
import re
from importlib import resources
from pathlib import Path
from typing import get_args

import pytest
from scipy.stats import chi2

from privacy import command
from privacy.attacks.one_run import ceiling
from privacy.audit import words
from privacy.audit.answers import Answer, CheckedClaim, Kind
from privacy.audit.measured import bounds, inversion
from privacy.audit.measured.one_run import DEFECTS
from privacy.audit.verify import Verdict
from privacy.conformance import noise
from privacy.conformance.results import FAMILY_ERROR
from privacy.conformance.tests import error_of_each, expected

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "privacy-audit.md").read_text("utf-8")
PLAIN = " ".join(PAGE.split())
COMMANDS = re.findall(r"^\$ collegium (.*)$", PAGE, flags=re.MULTILINE)


def rows(heading: str) -> list[list[str]]:
    """The cells of the rows of the Markdown table with this first heading."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, flags=re.MULTILINE)
    assert table is not None, heading
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in table[1].splitlines()]


@pytest.mark.parametrize("name", sorted({line.split()[0] for line in COMMANDS}))
def test_every_command_and_option_of_the_page_exists(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "dumb")
    assert command._outcome([name, "--help"]) == 0
    shown = capsys.readouterr().out
    options = {option for line in COMMANDS if line.startswith(name) for option in re.findall(r"--[a-z-]+", line)}
    assert not [option for option in options if option not in shown]


def test_first_words_kinds_and_verdicts_are_those_that_are_printed() -> None:
    assert {word for word, _ in rows("first word")} == set(get_args(Answer))
    assert [kind for kind, *_ in rows("kind")] == list(get_args(Kind)) == list(words.KINDS)
    assert [verdict for verdict, _ in rows("verdict")] == list(get_args(bounds.Verdict))


@pytest.mark.parametrize(
    ("answers", "authentic", "code"),
    [(("holds",), True, 0), (("holds", "fails"), True, 1), (("holds", "unchecked"), True, 3), (("holds",), False, 3)],
)
def test_exit_codes_are_those_of_the_verifier(answers: tuple[Answer, ...], authentic: bool, code: int) -> None:
    claims = tuple(CheckedClaim("some", "proved", answer, "") for answer in answers)
    assert Verdict(authentic, "", claims).exit_code == code
    assert str(code) in {row[0] for row in rows("exit code")}


def test_claims_of_the_page_are_those_of_the_schema_and_none_that_is_measured_is_missing() -> None:
    schema = json.loads(
        resources.files("privacy.audit").joinpath("schemas", "privacy-audit-v1.json").read_text("utf-8")
    )
    known = set(schema["properties"]["claims"]["items"]["properties"]["id"]["enum"])
    named = set(re.findall(r"`((?:audit|conformance|ledger|secagg)\.(?!html)[a-z_]+)`", PAGE))
    assert named <= known
    assert {claim for claim in known if claim.split(".")[0] in {"audit", "conformance", "ledger", "secagg"}} <= named


def test_beliefs_follow_from_epsilon() -> None:
    shown = rows("epsilon")
    assert len(shown) == 4
    assert all(words.chance(float(epsilon))[1] == belief for epsilon, belief in shown)


def test_tests_of_the_release_path_are_those_that_run() -> None:
    every = {
        test
        for placement in ("local", "distributed")
        for test, _ in expected(placement, "integer", poisson=placement == "local", noised=True)
    }
    assert [test for test, _ in rows("test")] == sorted(every)
    assert re.findall(r"\*\*(noise halved, .*?)\.\*\*", PLAIN) == [
        "noise halved, noise off, clipping off, the same seed twice"
    ]
    assert DEFECTS == ("noise halved", "noise off", "clipping off", "seed fixed")


def test_numbers_of_conformance_are_those_of_the_code() -> None:
    n = noise.DIMENSION * noise.RELEASES
    assert f"{n:,} draws tell noise that is 1.5 % too narrow" in PLAIN
    smallest = chi2.ppf(error_of_each(poisson=True) / 2, n)  # of the sum of squares that still passes
    assert chi2.cdf(smallest / 0.985**2, n) > 0.98
    assert f"once in {1 / FAMILY_ERROR:,.0f} starts" in PLAIN


def test_what_an_attacker_who_is_always_right_could_show() -> None:
    few, many = (tuple(math.floor(100 * bound) / 100 for bound in ceiling(m, float(bounds.DELTA))) for m in (200, 4096))
    assert f"With 200 canaries, guessing can show an epsilon of {few[0]} (Steinke) or {few[1]} (f-DP)" in PLAIN
    assert f"with 4,096 it is {many[0]} and {many[1]}." in PLAIN
    assert f"at delta {bounds.DELTA:f} with full batches" in PLAIN


def test_the_decibel_of_the_page_is_the_verifiers() -> None:
    assert inversion.ALLOWED_DECIBEL == 1.0
    assert "by more than one decibel" in PLAIN


def test_links_and_paths_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#:]+)\)", PAGE)
    assert [target for target in targets if not (DOCS / target).exists()] == []
    paths = re.findall(r"`((?:privacy|clients|server|simulations)/[a-z_/.0-9-]+)`", PAGE)
    assert len(paths) >= 4
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_files_and_tests_of_the_threat_model_are_there() -> None:
    """Tests are named from tests/, in the fourth column; everything else from the repository's root."""
    adversaries = (
        (DOCS / "threat-model.md").read_text("utf-8").partition("## Adversaries")[2].partition("## Not protected")[0]
    )
    table = [line.split(" | ") for line in adversaries.splitlines() if line.startswith("| ")][1:]
    assert len(table) >= 20
    for row in table:
        files, tests = (re.findall(r"`([a-z_]+/[a-z_./]+|constraints.txt)`", row[column]) for column in (2, 3))
        assert tests
        assert [name for name in files if not (ROOT / name).exists()] == []
        assert [name for name in tests if not (ROOT / "tests" / name).exists()] == []
