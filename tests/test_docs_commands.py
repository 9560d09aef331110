"""Every `collegium ...` that documents, unit files, scripts and error texts name exists, and so do its options."""

import re
from pathlib import Path

import click
import typer
from typer.testing import CliRunner

from privacy.command import app
from privacy.policy import shipped

ROOT = Path(__file__).parent.parent
_CALL = re.compile(r'(?:\bcollegium|\$collegium|"\$bin/collegium")((?: +[\w./:=$@{}"\'…-]+)+)')
_IN_CODE = re.compile(r'"\s*\n\s*f?"')
_OPTION = re.compile(r"--[a-z][a-z-]*")
_OF_ITSELF = {"--help"}


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    """Returns every command below ``command``, groups included, by the words that call it."""
    found = {path: command}
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found |= _commands(below, (*path, name))
    return found


COMMANDS = _commands(typer.main.get_command(app))


def _files() -> list[Path]:
    folders = [(ROOT / folder, "*") for folder in ("docs", "deploy")] + [(ROOT, "*.md")]
    folders += [(ROOT / package, "*.py") for package in ("privacy", "strategies", "server", "clients", "simulations")]
    found = [path for folder, kind in folders for path in (folder.glob(kind) if folder == ROOT else folder.rglob(kind))]
    return sorted(path for path in found if path.is_file() and path.suffix in {".md", ".sh", ".py", ".service"})


def wrong_calls(text: str) -> list[str]:
    """Returns the calls in ``text`` of a command or an option that does not exist."""
    wrong = []
    for call in _CALL.finditer(_IN_CODE.sub("", text.replace("\\\n", " "))):
        words = [word.strip("`.,;:\"'") for word in call[1].split()]
        path: tuple[str, ...] = ()
        while len(path) < len(words) and (*path, words[len(path)]) in COMMANDS:
            path = (*path, words[len(path)])
        rest, command = words[len(path) :], COMMANDS[path]
        if not path:
            continue  # a sentence about the project
        known = {option for each in command.params for option in (*each.opts, *each.secondary_opts)} | _OF_ITSELF
        if isinstance(command, click.Group) and rest and rest[0].isalpha():
            wrong.append(call[0])
        wrong += [call[0] for word in rest for option in _OPTION.findall(word) if option not in known]
    return wrong


def test_the_walk_finds_commands_and_this_test_finds_wrong_ones() -> None:
    assert ("site", "pause") in COMMANDS
    assert wrong_calls("collegium site resume ends that") == ["collegium site resume ends that"]
    assert wrong_calls("say `collegium verify report.html --nope` or") == ["collegium verify report.html --nope"]
    assert not wrong_calls("collegium site pause FOLDER --resume ends that")


def test_every_command_named_anywhere_exists() -> None:
    wrong = {path: found for path in _files() if (found := wrong_calls(path.read_text(encoding="utf-8")))}
    assert not wrong


def test_units_take_the_packages_from_the_source_and_have_a_folder_to_live_in() -> None:
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "deploy").glob("*.service")]
    installing = [text for text in texts if "useradd" in text]
    assert len(installing) == 2
    for text in installing:
        assert "install -d -o collegium -g collegium -m 0700 /var/lib/collegium" in text
        assert 'pip install -c constraints.txt ".[' in text


def test_every_policy_is_tested_as_its_page_says(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to-policy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+\.cedar)` \|.*\| `(policy-tests-\w+\.toml)` \|$", page, re.MULTILINE)
    assert len(rows) == 4
    for name in {file for row in rows for file in row}:
        (tmp_path / name).write_text(shipped.read(name), encoding="utf-8")
    (last,) = re.findall(r"`collegium site policy test (\w+\.cedar) \S+ (--kind \w+)`", page)
    for policy, table in rows:
        kind = last[1].split() if policy == last[0] else []
        found = CliRunner().invoke(
            app, ["site", "policy", "test", str(tmp_path / policy), str(tmp_path / table), *kind]
        )
        assert found.exit_code == 0, found.output
