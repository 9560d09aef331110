"""The text of a policy before Cedar reads it: what it may look like, and on which line each rule begins.

Cedar's parser recurses: about 1000 nested brackets end the process. So depth and size are limited here. Characters
that a reader does not see are refused, for they can make a rule look like a comment (Boucher and Anderson, "Trojan
Source", 2021).
"""

import re
from dataclasses import dataclass

from privacy.errors import ConfigError

MAX_CHARACTERS = 32_768
MAX_DEPTH = 32
MAX_CONDITIONALS = 100

_HINT = "collegium site policy show hospital.cedar prints one that works."
_PART = re.compile(r'"(?:\\.|[^"\\])*"|//[^\r\n]*|\s+|\bif\b|\w+|.', re.DOTALL)


@dataclass(frozen=True)
class Statement:
    """One rule as it is written; ``line`` counts from 1."""

    line: int
    text: str


def statements(text: str) -> tuple[Statement, ...]:
    """Splits a policy at the semicolons that end its rules; what follows the last one counts as a rule too.

    Raises: ConfigError: Too long, nested too deep, or with characters that cannot be seen.
    """
    _refuse_unseen(text)
    found: list[Statement] = []
    begin: int | None = None
    depth = conditionals = 0
    for match in _PART.finditer(text):
        part = match[0]
        if part.isspace() or part.startswith("//"):
            continue
        begin = match.start() if begin is None else begin
        depth += (part in "([{") - (part in ")]}")
        conditionals += part == "if"
        if depth > MAX_DEPTH or conditionals > MAX_CONDITIONALS:
            raise ConfigError(f"line {_line(text, match.start())} of the policy is nested too deep", hint=_HINT)
        if part == ";":
            found.append(Statement(_line(text, begin), text[begin : match.end()]))
            begin, depth = None, 0
    if begin is not None:
        found.append(Statement(_line(text, begin), text[begin:]))
    return tuple(found)


def _refuse_unseen(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the policy has more than {MAX_CHARACTERS} characters", hint=_HINT)
    for at, character in enumerate(text):
        # Cedar ends a comment at a lone carriage return, and a terminal would write over it.
        lone = character == "\r" and text[at + 1 : at + 2] != "\n"
        if lone or not (character.isprintable() or character in "\t\r\n"):
            raise ConfigError(f"line {_line(text, at)} of the policy has the unseen character U+{ord(character):04X}")


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
