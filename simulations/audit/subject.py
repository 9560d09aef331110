"""What an audit is about: a run's signed report, and for a simulated run also its job, its records and its model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from privacy.audit.audited import original
from privacy.audit.statement import Statement
from privacy.errors import ConfigError
from privacy.store.run_folder import MODEL_FILE, REPORT_FILE, RUN_FILE, RunFolder, read_text
from privacy.toml_document import parse_toml
from server.model_file import read_model
from simulations.data.datasets import SiteData
from simulations.job import Job, resolve
from simulations.members import load_member_data
from simulations.options import Options
from simulations.pieces import Pieces
from strategies.task import SiteId


@dataclass(frozen=True)
class Simulated:
    """What only an experimenter has: all records.

    Attributes:
      data: Of each site of the job. Secret.
      delivered: The run's model, as every site has it.
    """

    job: Job
    data: Mapping[SiteId, SiteData] = field(repr=False)
    delivered: Pieces

    @property
    def sizes(self) -> Mapping[SiteId, int]:
        """Training units of each site; public."""
        return {site: self.data[site].train.n_units for site in self.job.sites}


@dataclass(frozen=True)
class Subject:
    """A run to audit.

    Attributes:
      signed: The run's own report, its bytes.
      simulated: ``None`` for a run of real sites, whose records are theirs.
    """

    folder: RunFolder
    signed: bytes = field(repr=False)
    report: Statement
    simulated: Simulated | None

    @classmethod
    def of(cls, folder: RunFolder) -> "Subject":
        """Reads a run folder.

        Raises: ConfigError: It holds no report, or was not left by the job that its ``run.toml`` names.
        """
        found = original(folder.read(REPORT_FILE))
        real = found.report.predicate["run"]["engine"] == "sites"
        return cls(folder, found.data, found.report, None if real else _simulated(folder))


def _simulated(folder: RunFolder) -> Simulated:
    told = _run_file(folder)
    job = resolve(Options.from_run_config(told["options"]))
    if job.digest != told["job"]:
        raise ConfigError(
            "the run was made from other settings than its options give today",
            hint="Audit it with the version of collegium, and the scenario file, that made it.",
        )
    data = load_member_data(job)
    model = read_model(job, folder.read(MODEL_FILE))
    return Simulated(job, {site: data[site] for site in job.sites}, Pieces.of_run(job, model, folder.path))


def _run_file(folder: RunFolder) -> Mapping[str, Any]:
    told = parse_toml(read_text(folder.path / RUN_FILE), str(folder.path / RUN_FILE))
    if not isinstance(told.get("options"), dict) or not isinstance(told.get("job"), str):
        raise ConfigError(f"{folder.path / RUN_FILE} does not say what was run")
    return told
