"""`simulate digits-chain`: split training beside the whole model, the holder's piece, faults, and the signed report.

One run of the ten agents, short, of which one never answers.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from clients.sites import site_of
from clients.work import contribute
from privacy.audit import crossings, statement
from privacy.audit.envelope import decode
from privacy.audit.verify import verify
from privacy.errors import ConfigError
from privacy.store.run_folder import MODEL_FILE, REPORT_FILE
from server.model_file import parameters, read_model
from simulations import reference
from simulations.data.datasets import load_sites
from simulations.harness import Experiment
from simulations.holder import Holder
from simulations.job import resolve
from simulations.members import data_home
from simulations.options import Options
from simulations.outcome import Outcome
from simulations.pieces import Pieces
from simulations.progress import PlainObserver
from strategies.secure_sum import FRACTION_BITS
from strategies.task import SiteId
from tests.simulations import finished

SHORT = {"rows": "16", "local_steps": "4"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("chain") / "run"
    return finished.outcome(folder, "digits-chain", rounds=2, settings=SHORT)


def test_split_training_ends_where_the_whole_model_ends(ran: Outcome) -> None:
    """To the rounding of two masked sums, half a unit of the grid each: of the ends alone, a site blurs other bits."""
    whole = reference.federate(ran.job, ran.data)
    delivered = Pieces.of_run(ran.job, ran.trained.model, Path(ran.folder))
    np.testing.assert_allclose(delivered.model, whole.model, rtol=0, atol=2 * 2.0**-FRACTION_BITS)
    assert not np.array_equal(delivered.model, ran.job.initial)


def test_the_closing_table_shows_both_scores_side_by_side(ran: Outcome) -> None:
    assert ran.divided is not None
    (ends,) = ran.divided.parts
    assert ends.score == (ran.divided.smallest.score,)
    text = finished.shown(ran)
    for phrase in (
        f"front and tail at the sites, the rest at centre 4,810 {ends.score[0]:.3f}",
        f"the whole model at every site 13,130 {ends.score[0]:.3f}",
        "UNPROTECTED: a0, a1, a2, a3, a4, a5, a6, a7, a8, a9 showed centre the activations and gradients of records",
        "as they are: the images are public",
        "a cut changes what is learnt without privacy by rounding alone. In a private run the piece at centre keeps",
    ):
        assert phrase in text


def test_the_file_has_the_ends_and_the_holder_the_rest(ran: Outcome) -> None:
    data = (Path(ran.folder) / MODEL_FILE).read_bytes()
    arrays = safetensors.numpy.load(data)
    assert set(arrays) == {"0.weight", "0.bias", "6.weight", "6.bias"}
    assert sum(array.size for array in arrays.values()) == parameters(ran.job) == 4810
    read, held = read_model(ran.job, data), ran.job.part_of(ran.job.sites[0]).held
    np.testing.assert_array_equal(read[held], ran.trained.model[held])
    untouched = np.setdiff1d(np.arange(read.size), held)
    np.testing.assert_array_equal(read[untouched], ran.job.initial[untouched])


def test_the_signed_report_names_every_release_and_holds(ran: Outcome) -> None:
    folder = Path(ran.folder)
    data = (folder / REPORT_FILE).read_bytes()
    verdict = verify(data, self_signed=True, transcript=(folder / "transcript" / "secagg.jsonl").read_bytes())
    assert not [claim for claim in verdict.claims if claim.verdict == "fails"]
    body = statement.decode(decode(data).payload).predicate
    assert [one["owner"] for one in body["releases"]] == list(ran.job.sites)
    assert len(crossings.unprotected(body)) == 1
    said = " ".join(body["not_protected"])
    for words in ("centre holds the piece between and saw activations and gradients", "are personal data"):
        assert words in said
    assert "left their organisation unprotected" in (folder / "report.html").read_text()


@pytest.mark.soak
def test_a_site_that_fails_leaves_the_others_with_their_piece(tmp_path: Path) -> None:
    found = finished.outcome(
        tmp_path / "run", "digits-chain", rounds=1, settings={**SHORT, "fault.a3": "raises", "fault.a7": "nan"}
    )
    (record, _), *_ = found.trained.rounds
    assert set(record.missing) == {SiteId("a3"), SiteId("a7")}
    assert len(record.answered) == 8


def test_a_private_job_leaves_the_piece_where_it_was(tmp_path: Path) -> None:
    options = Options("digits-chain", privacy="record", rounds=1, settings={"rows": "16", "batch": "0"})
    job = resolve(options)
    data = {each.id: each for each in load_sites(job.scenario, data_home())}
    holder = Holder(job, tmp_path)
    np.testing.assert_array_equal(holder.model(job.initial), job.initial)
    site = site_of(job, SiteId("a0"), data[SiteId("a0")].train, holder.opener(None))
    contributed = contribute(site, {"model": job.initial[site.part.held]}, round_number=1)
    assert contributed.contribution.arrays["update"].any()
    np.testing.assert_array_equal(holder.model(job.initial), job.initial)


def test_only_the_local_engine_has_the_holder(tmp_path: Path) -> None:
    options = Options("digits-chain", privacy="none")
    job = resolve(options)
    with pytest.raises(ConfigError, match="--engine local"):
        Experiment.prepare(
            job, options, tmp_path / "run", engine="ray", run_id=1, observer=PlainObserver(io.StringIO())
        )
    assert not (tmp_path / "run").exists()
