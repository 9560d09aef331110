"""A table of the report page as data: what the template draws, and nothing about how."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A heading; numeric columns are aligned to the right."""

    name: str
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of texts and numbers, the first cell of each being its heading.

    Attributes:
      last_is_sum: Whether the last row sums up the others.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[str | int, ...], ...]
    last_is_sum: bool = False
