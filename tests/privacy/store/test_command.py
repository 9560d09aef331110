"""``collegium site ledger``: what is spent, what is left, what a run would cost, and whether it would be refused."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from privacy.dp.events import GaussianEvent, Sampling, SamplingType, SkellamEvent
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, FederationError
from privacy.store.budgets import UNLIMITED, Asset
from privacy.store.command import site
from privacy.store.ledger import Ledger
from tests.privacy.store.example import EVENT, FITS, HEARTS, debit, ledger_in

RENYI = Filter.for_budget(FilterKind.RENYI, Decimal(1), Decimal("0.001"))
LUNGS = Asset("lungs", {"record": RENYI})
SHARED = replace(HEARTS, purposes={"training": Decimal(1), "tuning": Decimal("0.5")}, aliases=("hearts-2024",))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    ledger = ledger_in(folder, SHARED, LUNGS)
    ledger.release(ledger.reserve([debit(1)]))
    ledger.reserve([debit(2, asset="hearts-2024", purpose="tuning")])
    sampled = GaussianEvent(Decimal(4), Sampling(SamplingType.POISSON, Decimal("0.05")), 20)
    skellam = SkellamEvent(Decimal("1e6"), Decimal(16), Decimal(64), 1)
    ledger.reserve([debit(1, asset="lungs", event=sampled), debit(2, asset="lungs", event=skellam)])
    return folder / "ledger.db"


def asked(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(site, ["ledger", *map(str, arguments)], env={"COLUMNS": "100"})
    if isinstance(result.exception, FederationError):
        raise result.exception
    return result.exit_code, result.stdout


def told(*arguments: object) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(asked(*arguments, "--json")[1])
    return answer


def test_it_tells_what_is_spent_and_left(path: Path) -> None:
    hearts, lungs = told(path)["assets"]
    (budget,) = hearts["budgets"]
    assert (hearts["asset"], hearts["aliases"]) == ("hearts", ["hearts-2024"])
    assert (budget["claim"], budget["filter"], budget["epsilon_budget"]) == ("record", "GDP filter", "1")
    assert budget["executions"] == 6
    assert Decimal(budget["spent"]) == Decimal("0.074074074075")  # 6 / 81, rounded up
    assert Decimal(budget["left"]) == Decimal("0.5089")
    assert [(one["purpose"], one["executions"], one["left"]) for one in budget["purposes"]] == [
        ("training", 3, "0.7544"),
        ("tuning", 3, "0.2544"),
    ]
    assert lungs["budgets"][0]["filter"] == f"Rényi filter, order {RENYI.order}"


def test_it_never_rounds_in_the_favour_of_the_guarantee(path: Path) -> None:
    with Ledger(path).reading() as books:
        for asset in told(path)["assets"]:
            (budget,) = asset["budgets"]
            own = books.asset(asset["asset"]).budgets["record"]
            assert isinstance(own, Filter)
            spent = own.spent(books.spent(asset["asset"], "record"))
            assert Decimal(budget["spent"]) == spent
            assert Decimal(budget["epsilon"]) >= Decimal(own.epsilon_of(spent))
            assert Decimal(budget["left"]) <= 1 - spent / own.limit


def test_it_lists_every_mechanism_with_what_became_of_it(path: Path) -> None:
    events = told(path)["events"]
    assert [(one["asset"], one["purpose"], one["rounds"], one["executions"]) for one in events] == [
        ("hearts", "training", [1, 1], 3),
        ("hearts-2024", "tuning", [2, 2], 3),
        ("lungs", "training", [1, 1], 20),
        ("lungs", "training", [2, 2], 1),
    ]
    assert events[0]["attempts"] == {"reserved": 0, "released": 1}
    assert events[0]["event"] == EVENT.times(1).to_json()
    assert [one["words"] for one in events[2:]] == [
        "Gaussian 4, Poisson 0.05",
        "Skellam 62.5000, norm 16",
    ]


def test_for_people(path: Path) -> None:
    code, text = asked(path)
    assert code == 0
    assert "entries, chain intact, head" in text.replace("\n", "")
    assert "hearts, also called hearts-2024" in text
    assert "50.89 % of the sum is left (GDP filter)" in text
    assert f"(Rényi filter, order {RENYI.order})" in text
    assert "1 of 1" in text
    assert "lungs" not in asked(path, "--asset", "hearts-2024")[1]


def test_a_run_that_fits(path: Path) -> None:
    more = FITS - 2
    planned = ("--asset", "hearts", "--noise-multiplier", "9", "--steps", 3 * more)
    code, text = asked(path, *planned)
    assert code == 0
    assert f"The budget has room for {3 * more} of its executions" in text
    assert text.endswith("It would be allowed.\n")
    answer = told(path, *planned)["planned"]
    assert answer["allowed"]
    assert Decimal(answer["epsilon_alone"]) < Decimal(answer["epsilon_after"]) <= 1
    assert told(path, "--asset", "hearts", "--would", json.dumps(EVENT.times(3 * more).to_json()))["planned"] == answer


def test_a_run_that_does_not(path: Path) -> None:
    planned = ("--asset", "hearts", "--noise-multiplier", "9", "--steps", 3 * (FITS - 2) + 1)
    code, text = asked(path, *planned)
    assert code == 1
    assert "It would be refused: the budget of asset hearts per record does not cover this. Epsilon" in text
    assert told(path, *planned)["planned"]["allowed"] is False
    sampled = ("--asset", "hearts", "--noise-multiplier", "9", "--rate", "0.1")
    assert "full-batch Gaussian noise only" in told(path, *sampled)["planned"]["refused"]


def test_next_to_no_noise_has_no_price_that_fits_a_line(path: Path) -> None:
    answer = told(path, "--asset", "hearts", "--noise-multiplier", "1e-20", "--steps", "1000000000")["planned"]
    assert (answer["epsilon_alone"], answer["epsilon_after"], answer["allowed"]) == ("inf", "inf", False)


def test_a_purpose_has_its_own_room(path: Path) -> None:
    planned = ("--asset", "hearts", "--purpose", "tuning", "--noise-multiplier", "9", "--steps")
    assert told(path, *planned, 3)["planned"]["executions_that_fit"] == 3
    assert asked(path, *planned, 3)[0] == 0
    code, text = asked(path, *planned, 4)
    assert code == 1
    assert "of which 0.5 may be used so" in text


def test_asking_writes_nothing(path: Path) -> None:
    before = path.read_bytes()
    asked(path, "--asset", "hearts", "--noise-multiplier", "9")
    assert path.read_bytes() == before


def test_a_simulation_says_so(tmp_path: Path) -> None:
    ledger_in(tmp_path, Asset("va", {"record": UNLIMITED}), simulation=True).reserve([debit(asset="va")])
    code, text = asked(tmp_path / "ledger.db", "--noise-multiplier", "9")
    assert code == 0
    assert "belongs to a simulation" in text
    assert "per record, for ever: no budget, 3 executions" in text
    assert "It would be allowed." in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--asset", "nobody"), "no asset 'nobody'"),
        (("--noise-multiplier", "9"), "one asset"),
        (("--asset", "hearts", "--noise-multiplier", "nine"), "not written as one"),
        (("--asset", "hearts", "--noise-multiplier", "-9"), "not a positive number"),
        (("--asset", "hearts", "--noise-multiplier", "9", "--rate", "2"), "sampling rate 2"),
        (("--asset", "hearts", "--noise-multiplier", "9", "--steps", "0"), "at least once"),
        (("--asset", "hearts", "--noise-multiplier", "9", "--purpose", "fun"), "no budget for fun"),
        (("--asset", "hearts", "--noise-multiplier", "9", "--claim", "site"), "per site"),
        (("--asset", "hearts", "--would", "{"), "not written as one"),
        (("--asset", "hearts", "--would", "[" * 100_000), "not written as one"),
        (("--asset", "hearts", "--would", "{}"), "exactly the fields"),
        (("--asset", "hearts", "--would", "{}", "--noise-multiplier", "9"), "both describe"),
    ],
)
def test_what_makes_no_sense_is_a_plain_line(path: Path, arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as info:
        asked(path, *arguments)
    assert all(line.isprintable() for line in info.value.lines())
