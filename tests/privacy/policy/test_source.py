"""What a policy's text may look like, and where its rules begin."""

import subprocess
import sys

import pytest

from privacy.errors import ConfigError
from privacy.policy.engine import CedarPolicy
from privacy.policy.source import MAX_CHARACTERS, MAX_CONDITIONALS, MAX_DEPTH, statements


def rule(condition: str) -> str:
    return '@id("a") permit (principal, action, resource) when { ' + condition + " };"


def test_a_rule_ends_at_a_semicolon_outside_text_and_comments() -> None:
    text = '// one;\n@id("a;\\";") // two; "\npermit;\n\n  forbid; rest'
    assert [(one.line, one.text.split()[-1]) for one in statements(text)] == [
        (2, "permit;"),
        (5, "forbid;"),
        (5, "rest"),
    ]


def test_what_is_within_the_limits_is_read_by_cedar_without_a_crash() -> None:
    """In a process of its own: Cedar's parser ends it where a stack overflows."""
    inside = MAX_DEPTH - 1  # one is the condition's own
    conditions = [
        "(" * inside + "true" + ")" * inside,
        "[" * inside + "]" * inside + " == []",
        "if true then " * MAX_CONDITIONALS + "true" + " else true" * MAX_CONDITIONALS,
        "true && " * ((MAX_CHARACTERS - 200) // 8) + "true",
        "context" + ".cohort" * ((MAX_CHARACTERS - 200) // 7),
        "1+" * ((MAX_CHARACTERS - 200) // 2) + "1 > 3",
    ]
    program = (
        "import sys, json\nfrom privacy.policy.engine import CedarPolicy\nfrom privacy.errors import ConfigError\n"
        "for text in json.load(sys.stdin):\n"
        "    try: CedarPolicy(text, 'site')\n"
        "    except ConfigError as error: assert 'nested' not in str(error), error\n"
    )
    texts = "[" + ",".join('"' + rule(one).replace('"', '\\"') + '"' for one in conditions) + "]"
    done = subprocess.run([sys.executable, "-c", program], input=texts, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "condition",
    [
        "(" * MAX_DEPTH + "true" + ")" * MAX_DEPTH,
        "{a: " * MAX_DEPTH + "1" + "}" * MAX_DEPTH + " == 1",
        "if true then " * (MAX_CONDITIONALS + 1) + "true" + " else true" * (MAX_CONDITIONALS + 1),
        '"(" == (' + "(" * 5000 + "1",
    ],
)
def test_deep_nesting_is_refused_before_cedar_sees_it(condition: str) -> None:
    with pytest.raises(ConfigError, match="line 1 of the policy is nested too deep"):
        CedarPolicy(rule(condition), "site")


def test_brackets_in_text_and_comments_do_not_count() -> None:
    CedarPolicy("// " + "(" * 500 + "\n" + rule('context.strategy == "' + "(" * 500 + '"'), "site")


def test_a_long_policy_is_refused() -> None:
    with pytest.raises(ConfigError, match="characters"):
        CedarPolicy(rule("true") + " " * MAX_CHARACTERS, "site")


@pytest.mark.parametrize("character", ["\u202e", "\u2066", "\u200b", "\0", "\x1b", "\ud800", "\u2028", "\x0b", "\r"])
def test_characters_that_nobody_sees_are_refused(character: str) -> None:
    with pytest.raises(ConfigError, match=f"line 2 .* U\\+{ord(character):04X}"):
        CedarPolicy(f"// a\n// {character} b\n" + rule("true"), "site")


def test_files_of_windows_are_read() -> None:
    CedarPolicy("// a\r\n\t" + rule("true") + "\r\n", "site")
