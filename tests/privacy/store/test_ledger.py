import sqlite3
import threading
from decimal import Decimal
from pathlib import Path

import pytest

from privacy.dp.events import FULL_BATCH, GaussianEvent
from privacy.errors import ConfigError, LocalProtocolError
from privacy.store.ledger import Debit, Ledger

EVENT = GaussianEvent(Decimal("10.6156"), FULL_BATCH, 2)


def test_debits_are_listed_as_made_and_survive_reopening(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    made = [Debit("va", 1, 1, EVENT), Debit("va", 1, 2, EVENT), Debit("cleveland", 1, 1, EVENT)]
    for debit in made:
        ledger.debit(debit, limit=10)
    again = Ledger(tmp_path / "ledger.db")
    assert again.debits() == tuple(made)
    assert again.debits("va") == tuple(made[:2])
    assert again.executed("va") == 4
    assert again.executed("nobody") == 0


def test_the_same_attempt_is_debited_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.debit(Debit("va", 1, 1, EVENT), limit=10)
    with pytest.raises(LocalProtocolError, match="already debited"):
        ledger.debit(Debit("va", 1, 1, EVENT), limit=10)


def test_the_limit_holds_when_many_debit_at_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    refused = []

    def spend(attempt: int) -> None:
        try:
            ledger.debit(Debit("va", 1, attempt, EVENT), limit=10)
        except LocalProtocolError:
            refused.append(attempt)

    threads = [threading.Thread(target=spend, args=(attempt,)) for attempt in range(1, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.executed("va") == 10
    assert len(refused) == 7


def test_a_debit_cannot_be_taken_back(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.debit(Debit("va", 1, 1, EVENT), limit=10)
    with sqlite3.connect(tmp_path / "ledger.db") as connection:
        for statement in ("DELETE FROM debits", "UPDATE debits SET executions = 1"):
            with pytest.raises(sqlite3.IntegrityError, match="final"):
                connection.execute(statement)


def test_a_file_that_is_no_ledger_is_a_plain_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"not a database, but long enough to be looked at " * 10)
    with pytest.raises(ConfigError, match="cannot be used"):
        Ledger(tmp_path / "ledger.db")
