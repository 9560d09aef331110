"""The house rules a reader relies on: who may import whom, who touches files and clocks, how long is long."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("privacy", "strategies", "server", "clients", "simulations")
ALLOWED = {
    "privacy": {"privacy"},
    "strategies": {"strategies", "privacy"},
    "server": {"server", "strategies", "privacy"},
    "clients": {"clients", "strategies", "privacy"},
    "simulations": set(PACKAGES),
}
ONLY_IN = {
    "flwr": {"server", "clients", "simulations"},
    "grpc": {"server", "clients", "simulations"},
    "ray": {"simulations"},
    "torch": {"strategies", "server", "clients", "simulations"},
}
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "proto" not in path.parts)


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            yield node.module or ""


def may_import(package: str, module: str) -> bool:
    top = module.split(".", maxsplit=1)[0]
    if top in PACKAGES:
        return top in ALLOWED[package]
    return package in ONLY_IN.get(top, set(PACKAGES))


def test_the_rule_itself_refuses_what_it_should() -> None:
    assert not may_import("server", "clients.app")
    assert not may_import("privacy", "torch")
    assert not may_import("strategies", "flwr.app")
    assert may_import("simulations", "server.rounds")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_imports_follow_the_direction(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    # The command mounts the other packages' commands by name; that is a string, not an import.
    wrong = [module for module in imports(ast.parse(path.read_text())) if not may_import(package, module)]
    assert not wrong


def test_opacus_is_used_in_one_file() -> None:
    users = {
        name(path) for path in SOURCES if any(m.startswith("opacus") for m in imports(ast.parse(path.read_text())))
    }
    assert users == {"clients/training.py"}


def test_flowers_private_names_are_in_one_file_a_side() -> None:
    public = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.simulation"}
    users = {
        name(path)
        for path in SOURCES
        if any(m.startswith("flwr") and m not in public for m in imports(ast.parse(path.read_text())))
    }
    assert users == {
        "clients/fleet.py",
        "server/superlink.py",
        "simulations/local_grid.py",
        "simulations/bench/flower.py",  # what we are measured against
    }


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in SOURCES
        if name(path).startswith("privacy/") and "store" not in path.parts and path.name != "command.py"
    ],
    ids=name,
)
def test_the_core_touches_no_files_clocks_or_environment(path: Path) -> None:
    tree = ast.parse(path.read_text())
    forbidden = {"time", "logging", "os", "pathlib", "shutil", "subprocess", "socket", "random", "secrets"}
    assert not {module.split(".")[0] for module in imports(tree)} & forbidden
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not calls & {"open", "print", "input", "eval", "exec"}


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{node.name} has {length} lines"
        if isinstance(node, ast.Assert):
            pytest.fail(f"line {node.lineno}: assert vanishes under -O; raise an error")


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_names_say_what_a_file_holds(path: Path) -> None:
    assert path.stem not in {"utils", "util", "helpers", "misc", "common"}
    assert not any(word in path.stem for word in ("manager", "handler"))
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_no_test_runs_the_command_to_its_end_in_this_process() -> None:
    """`main` may leave at once by ``os._exit``: the rest of the suite would not run, and nothing would say so."""
    tests = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    for path in tests:
        tree = ast.parse(path.read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "privacy.command":
                assert "main" not in [alias.name for alias in node.names], path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("command.main"):
                pytest.fail(f"{path} calls it")
