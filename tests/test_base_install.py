"""The base install by itself, in an environment of its own: small, without torch or Flower, and it verifies reports."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.privacy.audit import ledgers, masked, promises, sample

ROOT = Path(__file__).parent.parent
MOST_BYTES = 300 * 10**6
ABSENT = ("torch", "flwr", "opacus", "pandas", "sklearn", "grpc")


def run(*command: str | Path, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, timeout=timeout, cwd="/")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel and what it asks for; the folder with its programs."""
    place = tmp_path_factory.mktemp("base")
    built = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", place, ROOT)
    if built.returncode:
        pytest.skip(f"no package index to build the wheel with: {built.stderr.strip().splitlines()[-1][:200]}")
    run(sys.executable, "-m", "venv", "--without-pip", place / "env")
    (wheel,) = place.glob("collegium-*.whl")
    programs = place / "env" / "bin"
    found = run(
        sys.executable, "-m", "pip", "--python", programs / "python", "install", "-c", ROOT / "constraints.txt", wheel
    )
    if found.returncode:
        pytest.skip(f"no package index to install from: {found.stderr.strip().splitlines()[-1][:200]}")
    return programs


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_it_is_small_and_without_torch_or_flower(installed: Path) -> None:
    files = [path for path in installed.parent.rglob("*") if path.is_file() and not path.is_symlink()]
    size = sum(path.stat().st_size for path in files)
    assert size < MOST_BYTES, f"{size / 1e6:.0f} MB"
    code = f"from importlib.util import find_spec; print([name for name in {ABSENT} if find_spec(name)])"
    assert run(installed / "python", "-c", code).stdout == "[]\n"


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_it_verifies_a_report_with_everything_in_it(installed: Path, tmp_path: Path) -> None:
    body, data = ledgers.with_ledgers(promises.predicate())
    (tmp_path / "transcript").mkdir()
    (tmp_path / "transcript" / "ledgers.jsonl").write_bytes(data)
    (tmp_path / "transcript" / "secagg.jsonl").write_bytes(masked.signed_rounds())
    (tmp_path / "model.safetensors").write_bytes(b"a model")
    (tmp_path / "report.dsse.json").write_bytes(sample.signed(body))
    (tmp_path / "trust.txt").write_bytes(base64.b64encode(sample.KEY.public_key) + b"\n")
    verified = (installed / "collegium", "verify", tmp_path / "report.dsse.json", "--trust", tmp_path / "trust.txt")
    found = run(*verified, "--json")
    assert found.returncode == 0, found.stdout + found.stderr
    assert json.loads(found.stdout)["ok"] is True
    (tmp_path / "transcript" / "ledgers.jsonl").write_bytes(data[:-1])
    assert run(*verified).returncode == 1
