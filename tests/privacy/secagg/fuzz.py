"""Fuzzes every decoder and both machines: ``python -m tests.privacy.secagg.fuzz RUNS [SEED] [--plain] [--plant]``.

With atheris, whose feedback is the coverage of our own code; ``--plain``, or where there is no atheris, with seeded
random changes. Exits with 1 and prints the entry for ``tests/vectors/fuzz`` if a message is found that does harm.
``--plant`` puts in a reader that forgets that text may not be UTF-8, which must be found.
"""

import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

HERE = "tests.privacy.secagg"


def installed() -> bool:
    """Tells whether atheris is: there are wheels for Linux on x86-64 only."""
    return importlib.util.find_spec("atheris") is not None


def plant() -> None:
    """Makes the reader raise what it should not; no recorded message notices."""
    reader: Any = importlib.import_module("privacy.secagg.encoding")._Reader
    reader._text = lambda self, size: str(self._take(size), "utf-8")


def guided(engine: Any, fuzzer: Any, runs: int, seed: int, atheris: Any) -> None:
    """Lets libFuzzer run; it never returns."""
    folder = tempfile.TemporaryDirectory()
    started = time.process_time()

    def leave(code: int) -> None:
        """Ends the process from inside libFuzzer, which would report an exception as a crash of its own."""
        folder.cleanup()
        sys.stdout.flush()
        os._exit(code)

    def one(data: bytes) -> None:
        try:
            fuzzer.execute(data)
        except engine.FoundError:
            traceback.print_exc(file=sys.stdout)
            leave(1)
        if fuzzer.count == runs:
            sys.stdout.write(f"atheris: {fuzzer.figures(started)}\n")
            leave(0)

    def mutator(data: bytes, max_size: int, number: int) -> bytes:
        return bytes(fuzzer.mutated(data, number, max_size, lambda message: atheris.Mutate(message, max_size - 2)))

    for place, data in enumerate(fuzzer.seeds()):
        (Path(folder.name) / f"{place:03}").write_bytes(data)
    # A day for a message: on a busy machine any limit is the machine's fault, and atheris takes 0 for no time at all.
    options = [f"-seed={seed}", f"-max_len={engine.MAX_BYTES}", "-timeout=86400", "-rss_limit_mb=2048", "-verbosity=0"]
    options.append(f"-artifact_prefix={folder.name}/")
    atheris.Setup([sys.argv[0], *options, folder.name], one, custom_mutator=mutator)
    atheris.Fuzz()


def main(arguments: list[str]) -> int:
    numbers = [int(argument) for argument in arguments if not argument.startswith("--")]
    runs, seed = numbers[0], [*numbers, 1][1]
    atheris: Any = importlib.import_module("atheris") if installed() and "--plain" not in arguments else None
    covered: Any = (
        atheris.instrument_imports(include=["privacy", "strategies"]) if atheris else contextlib.nullcontext()
    )
    with covered:
        engine = importlib.import_module(f"{HERE}.fuzz_engine")
    fuzzer = engine.Fuzzing(engine.all_targets())
    if "--plant" in arguments:
        plant()
    if atheris:
        guided(engine, fuzzer, runs, seed, atheris)
    started = time.process_time()
    fuzzer.plain(runs, seed)
    sys.stdout.write(f"seeded changes: {fuzzer.figures(started)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
