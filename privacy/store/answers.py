"""What a site remembers of the questions it was asked: the one set of agents, and how many rows each asker sent.

Both must survive a restart. A second set of agents beside the first, for the same query or one close to it, tells the
scores of whoever is in one of them only; and a limit of questions a day that begins anew with every restart is none.
"""

import json
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import ClassVar

from privacy.charter.document import Charter
from privacy.dp.filters import Filter, FilterKind
from privacy.errors import ConfigError, LocalProtocolError, PrivacyError
from privacy.secagg.encoding import in_order
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

    def fix(self, charter: str, agents: Sequence[str]) -> None:
        """Fixes the set of agents for a charter, for ever; the same again changes nothing. Durable.

        Args:
          charter: Its digest, hex.
          agents: Site ids, sorted.

        Raises:
          PrivacyError: Another set was fixed.
          LocalProtocolError: They are not sorted.
          ConfigError: The file cannot be written.
        """
        if not in_order(agents):
            raise LocalProtocolError("a set of agents is named in the order of ids")
        text = json.dumps(list(agents))
        with self._database.writing() as connection:
            connection.execute("INSERT OR IGNORE INTO fixed_sets VALUES (?, ?)", (charter, text))
            (fixed,) = connection.execute("SELECT agents FROM fixed_sets WHERE charter = ?", (charter,)).fetchone()
        if fixed != text:
            raise PrivacyError(
                f"under this charter {', '.join(json.loads(fixed))} answer together, and no others",
                hint="A sum over other agents beside theirs would tell one agent's answer; it takes a new charter.",
            )

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
        "CREATE TABLE fixed_sets (charter TEXT PRIMARY KEY, agents TEXT NOT NULL) STRICT, WITHOUT ROWID",
        """CREATE TABLE questions (
      asker TEXT NOT NULL, day TEXT NOT NULL, n INTEGER NOT NULL CHECK (n > 0), PRIMARY KEY (asker, day)
    ) STRICT, WITHOUT ROWID""",
    )
