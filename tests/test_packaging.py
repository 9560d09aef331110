"""The traps of five flat top-level packages (docs/adr/0001), each with a test."""

import ast
import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("privacy", "strategies", "server", "clients", "simulations")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.mark.parametrize("package", PACKAGES)
def test_the_package_comes_from_this_repository(package: str) -> None:
    """A third-party top-level `privacy` in site-packages would win over an editable install."""
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_typed_for_outsiders(package: str) -> None:
    assert (ROOT / package / "py.typed").exists()


def test_every_test_folder_is_a_package() -> None:
    """Without __init__.py at every level, `import privacy` can find tests/privacy."""
    folders = [ROOT / "tests", *(path for path in (ROOT / "tests").rglob("*") if path.is_dir())]
    missing = [folder for folder in folders if folder.name != "__pycache__" and not (folder / "__init__.py").exists()]
    assert not [folder for folder in missing if any(folder.glob("*.py"))]


@pytest.mark.parametrize("component", ["serverapp", "clientapp"])
def test_flower_components_are_plain_assignments(component: str) -> None:
    """`app: ServerApp = ServerApp()` fails `flwr build`, and so does a re-export."""
    module, _, attribute = PROJECT["tool"]["flwr"]["app"]["components"][component].partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    targets = [
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    assert attribute in targets


def test_no_source_has_a_name_that_the_bundle_drops() -> None:
    """Flower drops test_*.py and *_test.py silently, and root folders lib, build, parts, env."""
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            assert not path.name.startswith("test_")
            assert not path.name.endswith("_test.py")
            assert not {"lib", "build", "parts", "env"} & set(path.relative_to(ROOT).parts)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle built by Flower from a clean copy; the app folder's name must be letters, digits and hyphens."""
    home = tmp_path_factory.mktemp("bundle")
    app = home / "app"
    app.mkdir()
    for entry in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        (app / entry).write_bytes((ROOT / entry).read_bytes())
    for package in PACKAGES:
        _copy(ROOT / package, app / package)
    environment = {**os.environ, "FLWR_HOME": str(home / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
    command = [str(Path(sys.executable).with_name("flwr")), "build", "--app", str(app)]
    done = subprocess.run(
        command,
        cwd=home,
        env={**environment, "FLWR_DISABLE_UPDATE_CHECK": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = [*home.glob("*.fab"), *app.glob("*.fab")]
    return built


def _copy(source: Path, target: Path) -> None:
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            (target / path.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            (target / path.relative_to(source)).write_bytes(path.read_bytes())


def test_the_bundle_holds_all_code_and_scenarios(bundle: Path) -> None:
    held = set(zipfile.ZipFile(bundle).namelist())
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in {".py", ".toml", ".json"} and "__pycache__" not in path.parts:
                assert str(path.relative_to(ROOT)) in held
    assert not [entry for entry in held if entry.startswith(("tests/", "docs/"))]


def test_the_bundle_runs_with_nothing_else_on_the_path(bundle: Path, tmp_path: Path) -> None:
    """From elsewhere: started in the checkout, workers would import the checkout's packages instead."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(tmp_path / "app")
    program = (
        f"import sys; sys.path = [{str(tmp_path / 'app')!r}] + [p for p in sys.path if p and p != {str(ROOT)!r}]\n"
        "import simulations.server_app, simulations.client_app, simulations.scenario as s\n"
        "import privacy.audit.html.page as p\n"
        f"assert p.__file__.startswith({str(tmp_path)!r}), p.__file__\n"
        "assert s.load('hospitals').name == 'hospitals'\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_base_install_verifies_without_torch_and_flwr() -> None:
    """The trusted core and the verifier import nothing from the extras."""
    extras = ["torch", "flwr", "opacus", "ray", "pandas", "sklearn", "pooch", "safetensors", "pyarrow"]
    program = (
        "import importlib.abc, sys\n"
        "class Absent(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {extras}: raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        "import privacy.command, privacy.audit.verify, privacy.audit.html.page, privacy.dp.plan, privacy.store.ledger\n"
        "privacy.command.main(['simulate', 'hospitals'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "pip install -c constraints.txt '.[simulate]'" in done.stderr
    assert len(done.stderr.splitlines()) == 2
