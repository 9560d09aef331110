"""The README's commands, run; its printed output, compared. Only what noise moves may differ."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```text\n(.*?)```", README, flags=re.DOTALL)
COMMAND = str(Path(sys.executable).with_name("collegium"))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def printed(home: Path) -> str:
    done = subprocess.run(
        ["collegium", "simulate", "hospitals", "--out", "runs/hospitals"],
        cwd=home,
        env={**os.environ, "PATH": f"{Path(COMMAND).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shown(text: str) -> list[str]:
    """The lines with every number that noise or the clock moves replaced by a mark."""
    lines = []
    for line in text.rstrip().splitlines():
        cells = line.split()
        if len(cells) == 10 and cells[1].isdigit():  # a site: private score and its interval
            cells[7:9] = ["~", "~"]
        elif cells[:1] == ["mean"]:
            cells[5] = "~"
        lines.append(re.sub(r"in \d+\.\d s", "in ~ s", " ".join(cells)))
    return lines


def test_the_main_jobs_output_is_the_real_one(printed: str) -> None:
    assert shown(printed) == shown(BLOCKS[0])


def test_verifying_prints_what_the_readme_shows(printed: str, home: Path) -> None:
    assert printed
    done = subprocess.run(
        [COMMAND, "verify", "runs/hospitals/report.html", "--trust", "runs/hospitals/trusted-keys.txt"],
        cwd=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0

    def masked(text: str) -> list[str]:
        return re.sub(r"\b[0-9a-f]{16}\b", "~", text).rstrip().splitlines()

    assert masked(done.stdout) == masked(BLOCKS[1])


def test_the_audit_prints_what_the_readme_shows(printed: str, home: Path) -> None:
    assert printed
    done = subprocess.run([COMMAND, "audit", "runs/hospitals"], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

    def masked(text: str) -> list[str]:
        plain = re.sub(r"\b[0-9a-f]{16}\b|\((\w+);", "~", text)  # keys, and the site that chance makes the worst
        return re.sub(r"[0-9][0-9.:T+-]*", "~", plain).rstrip().splitlines()

    kept = ("holds      report.audited", "holds      audit.", "not measured")
    told = [line for line in done.stdout.splitlines() if line.startswith(kept)]
    assert masked("\n".join(told)) == masked(BLOCKS[2])


def test_every_option_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"(?<!-)--[a-z][a-z-]+", README)) - {"--stream", "--federation-config", "--run-config"}
    helps = "".join(
        subprocess.run(
            [COMMAND, *command.split(), "--help"],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
        ).stdout
        for command in ("simulate", "scenarios", "verify", "audit", "report", "plan", "site ledger")
    )
    assert not [option for option in named if option not in helps]


def test_every_file_that_the_readme_links_exists() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_make_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_first_command_stands_on_the_first_screen() -> None:
    assert "make run" in "\n".join(README.splitlines()[:20])
