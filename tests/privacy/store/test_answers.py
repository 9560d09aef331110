"""The one set of agents and the counts of questions survive whatever happens to the process."""

import os
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from decimal import Decimal
from pathlib import Path

import pytest

from privacy.charter.document import from_body
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, LocalProtocolError, PrivacyError
from privacy.store.answers import ANSWERS_ASSET, ANSWERS_CLAIM, Answers, answers_asset
from privacy.store.budgets import Asset
from tests.privacy.charter.example import CHARTER, body
from tests.privacy.charter.test_inference import noise, terms

MONDAY, TUESDAY = date(2026, 7, 6), date(2026, 7, 7)
FOUR = dict.fromkeys(("alba", "brno", "cork", "dole"), "weight 1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.db"


def test_one_set_of_agents_and_weights_an_asset_for_ever(path: Path) -> None:
    Answers(path).fix_set("hearts", FOUR)
    again = Answers(path)
    again.fix_set("hearts", FOUR)
    three = {agent: FOUR[agent] for agent in ("alba", "brno", "cork")}
    more, another, weightier = {**FOUR, "evil": "weight 1"}, {**three, "evil": "weight 1"}, {**FOUR, "dole": "weight 2"}
    for other in (three, more, another, weightier):
        for refuse in (again.check_set, again.fix_set):
            with pytest.raises(
                PrivacyError, match=r"hearts, .*: alba \(weight 1\), .*, dole \(weight 1\); .* needs noise"
            ):
                refuse("hearts", other)
    Answers(path).fix_set("lungs", three)
    Answers(path).check_set("hearts", dict(reversed(FOUR.items())))
    Answers(path).fix_set("hearts", dict(reversed(FOUR.items())))


def test_asking_fixes_nothing(path: Path) -> None:
    answers = Answers(path)
    answers.check_set("hearts", FOUR)
    answers.check_set("hearts", {**FOUR, "dole": "weight 2"})
    answers.fix_set("hearts", {**FOUR, "dole": "weight 2"})
    with pytest.raises(PrivacyError):
        answers.check_set("hearts", FOUR)


def test_questions_are_counted_by_asker_and_day(path: Path) -> None:
    answers = Answers(path)
    assert answers.count("alba", MONDAY, 10) == (10, 10)
    assert answers.count("alba", MONDAY, 5) == (15, 15)
    assert answers.count("brno", MONDAY, 1) == (1, 1)
    assert answers.count("alba", TUESDAY, 1) == (1, 16)
    assert Answers(path).count("alba", MONDAY, 1) == (16, 17)  # a clock that goes back forgets nothing


@pytest.mark.parametrize("n", [0, -5])
def test_nothing_is_counted_back(path: Path, n: int) -> None:
    answers = Answers(path)
    answers.count("alba", MONDAY, 5)
    with pytest.raises(LocalProtocolError):
        answers.count("alba", MONDAY, n)
    assert answers.count("alba", MONDAY, 1) == (6, 6)


def test_no_count_is_lost_between_threads_and_files(path: Path) -> None:
    Answers(path)
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda _: Answers(path).count("alba", MONDAY, 1), range(40)))
    assert sorted(done) == [(n, n) for n in range(1, 41)]


def test_a_killed_process_has_counted_whatever_it_was_about_to_answer(path: Path) -> None:
    program = (
        "import sys\nfrom datetime import date\nfrom pathlib import Path\nfrom privacy.store.answers import Answers\n"
        "answers = Answers(Path(sys.argv[1]))\nanswers.fix_set('hearts', {'alba': 'weight 1'})\n"
        "while True: print(answers.count('alba', date(2026, 7, 6), 1)[1], flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None:
            pytest.fail("no output")
        for _ in range(5):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
        answered = 5 + len(process.stdout.read().splitlines())
    ever = Answers(path).count("alba", MONDAY, 1)[1]
    assert answered < ever <= answered + 2  # at most one was counted and not answered any more
    with pytest.raises(PrivacyError):
        Answers(path).check_set("hearts", FOUR)


def test_the_file_is_the_sites_own(path: Path) -> None:
    Answers(path).count("alba", MONDAY, 1)
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}


def test_another_file_is_left_as_it_is(path: Path) -> None:
    Answers(path)
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE more (a)")
    with pytest.raises(ConfigError, match="does not have the tables"):
        Answers(path)


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        Answers(tmp_path / "nowhere" / "answers.db")


def test_the_budget_of_answers_is_the_charters() -> None:
    assert answers_asset(CHARTER) is None
    assert answers_asset(from_body(body(inference=terms()))) is None
    found = answers_asset(from_body(body(inference=terms(noise=noise()))))
    assert found is not None
    budget = Filter.for_budget(FilterKind.RENYI, Decimal(4), Decimal("0.001"))
    assert (found.name, dict(found.budgets)) == (ANSWERS_ASSET, {ANSWERS_CLAIM: budget})
    assert Asset.from_json(found.to_json()) == found
    with pytest.raises(ConfigError, match="charter-v1"):  # no data of a charter can have its name
        from_body(body(assets={ANSWERS_ASSET: {"purposes": ["t"], "epsilon": "1", "delta": "0.001"}}))
