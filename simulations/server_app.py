"""The ServerApp that ``flwr run`` loads: the same experiment as ``collegium simulate``, on Flower's grid."""

import sys

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from privacy.errors import ConfigError, FederationError
from simulations.harness import Experiment
from simulations.job import resolve
from simulations.members import folder_of
from simulations.options import Options
from simulations.progress import PlainObserver
from simulations.table import show

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Runs the experiment that the run configuration asks for and prints its closing table."""
    try:
        options = Options.from_run_config(dict(context.run_config))
        job = resolve(options)
        if job.faults:
            raise ConfigError("fault.SITE works with `collegium simulate` only")
        experiment = Experiment.prepare(
            job,
            options,
            folder_of(options, context.run_id),
            engine="flwr",
            run_id=context.run_id,
            observer=PlainObserver(sys.stdout),
        )
        outcome = experiment.run(grid)
    except FederationError as error:
        for line in error.lines():
            print(line, flush=True)  # noqa: T201 - the log stream of `flwr run` is what the person sees
        raise
    show(outcome, Console(width=120, no_color=True))
