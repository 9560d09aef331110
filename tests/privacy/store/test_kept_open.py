"""Files that a resident process keeps open: as durable as before, and a write costs one sync and not the whole log."""

from datetime import date
from pathlib import Path

import pytest

from privacy.errors import ConfigError
from privacy.store.answers import Answers
from privacy.store.database import kept_open

DAY = date(2026, 11, 23)


def test_the_write_ahead_log_stays_while_the_file_is_kept_open_and_what_was_written_stays_after(tmp_path: Path) -> None:
    path, log = tmp_path / "answers.db", tmp_path / "answers.db-wal"
    answers = Answers(path)
    answers.count("alba", DAY, 1)
    assert not log.exists()
    with kept_open(path):
        answers.count("alba", DAY, 1)
        assert log.exists()
    assert not log.exists()
    assert Answers(path).count("alba", DAY, 1) == (3, 3)


def test_a_file_that_is_no_database_is_one_plain_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(ConfigError, match=r"cannot be read"), kept_open(path):
        pass
