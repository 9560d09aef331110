from pathlib import Path

import pytest

from privacy.errors import ConfigError, LocalProtocolError
from privacy.secagg.effects import Attempt
from privacy.store.admissions import Admissions
from privacy.store.ledger import Ledger

RUN, OTHER = bytes(16), bytes([1] * 16)


def test_the_highest_attempt_survives_reopening(tmp_path: Path) -> None:
    admissions = Admissions(tmp_path / "ledger.db")
    assert admissions.last("va", RUN) == (0, 0)
    for round_number, attempt in [(1, 1), (1, 2), (10, 1), (2, 3)]:
        admissions.admit("va", Attempt(RUN, round_number, attempt))
    again = Admissions(tmp_path / "ledger.db")
    assert again.last("va", RUN) == (10, 1)
    assert again.last("va", OTHER) == (0, 0)
    assert again.last("cleveland", RUN) == (0, 0)


def test_an_attempt_is_admitted_once(tmp_path: Path) -> None:
    admissions = Admissions(tmp_path / "ledger.db")
    admissions.admit("va", Attempt(RUN, 1, 1))
    admissions.admit("cleveland", Attempt(RUN, 1, 1))
    with pytest.raises(LocalProtocolError, match="admitted before"):
        admissions.admit("va", Attempt(RUN, 1, 1))


def test_it_shares_a_file_with_the_ledger(tmp_path: Path) -> None:
    Ledger.create(tmp_path / "ledger.db")
    Admissions(tmp_path / "ledger.db").admit("va", Attempt(RUN, 1, 1))
    assert Ledger(tmp_path / "ledger.db").debits() == ()


def test_a_place_that_cannot_be_written_is_a_plain_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be made"):
        Admissions(tmp_path / "nowhere" / "ledger.db")
