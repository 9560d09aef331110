"""Runs that came to their end, for tests of what is told about them: in this process, in a few seconds."""

import io
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from simulations.engines import run_local
from simulations.harness import Experiment
from simulations.job import resolve
from simulations.options import Options
from simulations.outcome import Outcome
from simulations.progress import PlainObserver
from simulations.table import show


def outcome(
    folder: Path, scenario: str, *, rounds: int, settings: Mapping[str, str] | None = None, secagg: bool = True
) -> Outcome:
    """Runs a scenario without differential privacy into a folder that does not exist yet."""
    options = Options(scenario=scenario, rounds=rounds, privacy="none", secagg=secagg, settings=settings or {})
    job, observer = resolve(options), PlainObserver(io.StringIO())
    return run_local(
        lambda run_id: Experiment.prepare(job, options, folder, engine="local", run_id=run_id, observer=observer)
    )


def shown(found: Outcome) -> str:
    """Returns what a person sees at the end, with single spaces."""
    stream = io.StringIO()
    show(found, Console(file=stream, width=140))
    return " ".join(stream.getvalue().split())
