"""The model that an agent answers with: trained at home on its own records, or what a closed run left at the site.

Neither is private by itself: the home model is trained without noise. What protects records in an answer is that only
sums over the fixed set are opened, and the charter's noise in them, if any.
"""

import hashlib
import threading
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch

from clients.assets import Loaded, load
from clients.home import train_alone
from clients.joint.terms import Queries, Scores
from clients.private_part import read_private
from clients.real_site import PRIVATE_FILE, RUNS_FOLDER
from clients.run_store import RunStore
from clients.scores import probabilities
from privacy.errors import ConfigError, FederationError
from privacy.store.run_folder import RunFolder, read_file
from privacy.store.site_folder import SiteFolder
from privacy.store.site_settings import AssetSettings
from strategies.contribution import Vector
from strategies.invitation import open_invitation, resolve_invited
from strategies.job import Job
from strategies.models import build, load_vector
from strategies.study import Study
from strategies.task import ModelSpec, SiteId

HOME = "home"
HOME_FILE = "home.safetensors"
SEED = 42  # of the initial values, as `collegium simulate` has it unless told otherwise
_LARGEST = 2**32
_RUN = "run"


@dataclass
class OwnModel:
    """A model at work; several threads may ask it.

    Attributes:
      name: What it is, for people.
      source: What it is to those who ask: ``home``, or ``run:NAME``.
      asset: Whose records it was made of.
    """

    name: str
    source: str
    asset: str
    spec: ModelSpec
    n_inputs: int
    parameters: Vector = field(repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        self._module = build(self.spec, self.n_inputs, seed=0)
        load_vector(self._module, self.parameters)
        self._module.eval()

    def score(self, queries: Queries) -> Scores:
        """Returns how likely each class is for every row, shape ``(n, k)``, each row summing to one. Secret."""
        torch.set_num_threads(1)
        with self._lock, torch.no_grad():
            return probabilities(self._module(torch.from_numpy(np.array(queries))))


def open_model(folder: SiteFolder, study: Study, wanted: str) -> OwnModel:
    """Opens the model that a site answers with; the one at home is trained if it is not there yet.

    Args:
      folder: The site's.
      study: That of the folder.
      wanted: ``home``, or ``run:NAME`` for what the closed run NAME left here.

    Raises: ConfigError: There is no such model, or the study's inputs mean something else at every site.
    """
    if study.task.scaling == "own":
        raise ConfigError(
            f"the study {study.name} scales inputs by each site's own records: a row means something else at each",
            hint="Ask jointly in studies with public scaling.",
        )
    if wanted == HOME:
        return _home(folder, study)
    kind, _, name = wanted.partition(":")
    if kind != _RUN or not name:
        raise ConfigError(f"{wanted!r} is no model", hint="Choose home, or run:NAME for a run that was closed here.")
    return _of_run(folder, study, name)


def _home(folder: SiteFolder, study: Study) -> OwnModel:
    """Trains once; again if study or training records changed, as when somebody opted out."""
    site = SiteId(folder.holder.id)
    asset = only_asset(folder)
    loaded = load(asset, study.task)
    part = study.division.part_of(site)
    spec = study.task.model.part(part.width, part.depth)
    made_from = _fingerprint(study, loaded)
    parameters = _kept(folder, made_from)
    if parameters is None:
        parameters = train_alone(study.task, spec, loaded.train, site=site, seed=SEED)
        data = safetensors.numpy.save({"parameters": parameters, "made_from": made_from})
        RunFolder(folder.path).write(HOME_FILE, data)
    return OwnModel(f"home ({len(loaded.train)} records)", HOME, asset.name, spec, study.task.n_inputs, parameters)


def only_asset(folder: SiteFolder) -> AssetSettings:
    """Returns a site's asset where it has one. Raises: ConfigError: It has several, and nobody says which."""
    assets = folder.settings.assets
    if len(assets) != 1:
        raise ConfigError(
            f"{folder.path / folder.settings_file} lists {len(assets)} assets, and nothing says which one is meant",
            hint="Name what is meant: rows with --csv FILE, a model with --model run:NAME.",
        )
    return next(iter(assets.values()))


def _fingerprint(study: Study, loaded: Loaded) -> npt.NDArray[np.uint8]:
    records = loaded.train
    found = hashlib.sha256(study.digest.encode() + records.x.tobytes() + records.y.tobytes())
    return np.frombuffer(found.digest(), np.uint8)


def _kept(folder: SiteFolder, made_from: npt.NDArray[np.uint8]) -> Vector | None:
    """Returns the parameters of an earlier start, unless they were made from something else."""
    if not (folder.path / HOME_FILE).exists():
        return None
    try:
        found = safetensors.numpy.load(folder.read(HOME_FILE, limit=_LARGEST))
        parameters, before = found["parameters"], found["made_from"]
    except (KeyError, safetensors.SafetensorError) as error:
        raise ConfigError(
            f"{folder.path / HOME_FILE} cannot be read: {error}", hint="Remove it: the model is trained again."
        ) from None
    return parameters if np.array_equal(before, made_from) else None


def _of_run(folder: SiteFolder, study: Study, name: str) -> OwnModel:
    job, asset, piece = left_by_run(folder, study, name)
    if job.chain is not None:
        raise ConfigError(
            f"run {name} left only the ends of its model here: the rest is at {job.chain.holder}",
            hint=f"Ask in mode chain: collegium predict --mode chain --run {name}.",
        )
    spec = job.spec_of(SiteId(folder.holder.id))
    return OwnModel(f"run {name}", of_run(name), asset, spec, study.task.n_inputs, piece)


def of_run(name: str) -> str:
    """Returns what `open_model` calls that which the run of this name left at the sites."""
    return f"{_RUN}:{name}"


def left_by_run(folder: SiteFolder, study: Study, name: str) -> tuple[Job, str, Vector]:
    """Returns a closed run's job, its asset, and the parameters that the site works with since, laid out as its part.

    Raises: ConfigError: No such run was closed here. VerificationError: It was of another study.
    """
    site = SiteId(folder.holder.id)
    try:
        store = RunStore(folder.path / RUNS_FOLDER, name)
    except FederationError as error:
        raise ConfigError(str(error)) from None
    path = store.path / "model.f32"
    if not store.closed or not path.is_file():
        raise ConfigError(f"no run {name} was closed at {site}", hint=f"Those that were are in {store.path.parent}.")
    invitation = open_invitation(store.invitation, folder.charter.server.identity)
    job = resolve_invited(study, invitation)
    part, private = job.part_of(site), store.path / PRIVATE_FILE
    held = np.frombuffer(read_file(path, limit=_LARGEST), dtype="<f4")
    kept = read_private(private, part) if private.is_file() else None
    return job, invitation.asset, part.piece_of(held, job.initial_of(site), kept)
