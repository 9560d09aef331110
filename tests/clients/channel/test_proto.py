"""The generated code is what protoc makes of ``channel.proto``, and grpc stays where it belongs."""

import ast
from importlib import import_module
from pathlib import Path

from tests.test_architecture import ROOT, SOURCES, imports, name


def test_the_code_is_generated_from_the_file(tmp_path: Path) -> None:
    protoc = import_module("grpc_tools.protoc")
    out = [f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    assert protoc.main(["protoc", f"-I{ROOT}", *out, str(ROOT / "clients/proto/channel.proto")]) == 0
    for file in ("channel_pb2.py", "channel_pb2.pyi"):
        made, here = tmp_path / "clients/proto" / file, ROOT / "clients/proto" / file
        assert made.read_bytes() == here.read_bytes(), f"generate {file} again, as channel.proto says"


def test_grpc_is_imported_by_the_channel_and_its_bench_alone() -> None:
    texts = {name(path): text for path in SOURCES if "grpc" in (text := path.read_text())}
    modules = {user: {one.partition(".")[0] for one in imports(ast.parse(text))} for user, text in texts.items()}
    users = {user for user, found in modules.items() if found & {"grpc", "grpc_health"}}
    allowed = tuple(f"clients/channel/{one}.py" for one in ("dialler", "listener", "transport"))
    assert set(allowed) <= users
    assert all(user in allowed or user.startswith("simulations/bench/") for user in users)
