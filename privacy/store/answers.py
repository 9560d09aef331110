"""What a site remembers of the questions it was asked: the one set of agents, and how many rows each asker sent.

Both must survive a restart, and the set a new charter and a new study too. Without noise a second set of agents beside
the first, for the same query or one close to it, tells the scores of whoever is in one of them only; the same set at
other weights is a second equation about the same scores; and an agent that has to answer with a part of the model too
small to say much shows in the difference what it said before. A limit of questions a day that begins anew with every
restart is none.
"""

import json
import sqlite3
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from privacy.charter.document import Charter
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, LocalProtocolError, PrivacyError
from privacy.store.budgets import Asset
from privacy.store.database import Database

ANSWERS_FILE = "answers.db"
ANSWERS_ASSET = "joint answers"
"""In the ledger; a space, so that no charter has data of that name."""
ANSWERS_CLAIM = "site-distributed"
"""Neighbours differ by all scores that one agent gave; it holds against everybody but a third of the agents."""


class Answers:
    """The file ``answers.db``; safe to use from several threads and processes at once."""

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it. Raises: ConfigError: It cannot be used."""
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise ConfigError(f"{path} cannot be made: {error.strerror or error}") from error
        self._database = _File.create(path)

    def check_set(self, asset: str, members: Mapping[str, str]) -> None:
        """Refuses a sum without noise over any set but the fixed one; nothing is fixed by asking.

        Args:
          asset: What the own model was made of, as the charter calls it: other terms or another study for the same
            records are no other data.
          members: By site id of every agent in the sum, its weight and its part of the model; words of one spelling.
            Public.

        Raises: PrivacyError: Another set was fixed. ConfigError: The file cannot be read.
        """
        with self._database.reading() as connection:
            _refuse_another(connection, asset, members)

    def fix_set(self, asset: str, members: Mapping[str, str]) -> None:
        """Fixes the set for an asset, for ever, durably; call it before anything goes into a sum without noise.

        The same again changes nothing. Arguments as for `check_set`.

        Raises: PrivacyError: Another was fixed, and stays. ConfigError: The file cannot be written.
        """
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO fixed_sets VALUES (?, ?)", (asset, _spelt(members)))
            _refuse_another(connection, asset, members)

    def count(self, asker: str, day: date, n: int) -> tuple[int, int]:
        """Counts rows of an asker, durably; call it before they are answered, whether they will be or not.

        Args:
          asker: Site id.
          day: By the site's own clock and in its time zone.
          n: Rows, at least 1.

        Returns: Its rows of that day and its rows ever, these included.
        Raises: LocalProtocolError: ``n`` counts nothing. ConfigError: The file cannot be written.
        """
        if n < 1:
            raise LocalProtocolError(f"{n} rows cannot be counted")
        with self._database.writing() as connection:
            connection.execute(
                "INSERT INTO questions VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
                (asker, day.isoformat(), n),
            )
            today, ever = connection.execute(
                "SELECT sum(n) FILTER (WHERE day = ?), sum(n) FROM questions WHERE asker = ?", (day.isoformat(), asker)
            ).fetchone()
        return int(today), int(ever)


def _spelt(members: Mapping[str, str]) -> str:
    return json.dumps(dict(members), sort_keys=True)


def _refuse_another(connection: sqlite3.Connection, asset: str, members: Mapping[str, str]) -> None:
    found = connection.execute("SELECT members FROM fixed_sets WHERE asset = ?", (asset,)).fetchone()
    if found is None or found[0] == _spelt(members):
        return
    fixed = ", ".join(f"{agent} ({words})" for agent, words in json.loads(found[0]).items())
    raise PrivacyError(
        f"without noise only these answer together about {asset}, whatever charter and study say: {fixed}; "
        "anything else needs noise, the charter's [inference.noise]",
        hint="Two sums over different agents, or at different weights, would tell what single agents said.",
    )


def answers_asset(charter: Charter) -> Asset | None:
    """Returns what a site's ledger keeps for its answers, over all askers; ``None`` where no noise is asked for.

    Declare it once; like every asset it keeps its first budget, whatever a later charter says.
    """
    terms = charter.inference
    if terms is None or terms.noise is None:
        return None
    budget = Filter.for_budget(FilterKind.RENYI, terms.noise.epsilon, terms.noise.delta)
    return Asset(ANSWERS_ASSET, {ANSWERS_CLAIM: budget}, {ANSWERS_ASSET: Decimal(1)})


class _File(Database):
    tables: ClassVar[tuple[str, ...]] = (
        "CREATE TABLE fixed_sets (asset TEXT PRIMARY KEY, members TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE questions (
      asker TEXT NOT NULL, day TEXT NOT NULL, n INTEGER NOT NULL CHECK (n > 0), PRIMARY KEY (asker, day)
    ) STRICT, WITHOUT ROWID""",
    )
