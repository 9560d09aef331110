"""The closing table: what collaboration brought each site, what privacy cost, what left the building."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from privacy.audit.words import chance
from privacy.dp.accounting import round_up
from privacy.dp.events import Relation, SamplingType
from privacy.dp.plan import RecordPlan, Unit
from privacy.store.budgets import filter_name
from server.claims import Placement
from simulations import table_chain, table_divided
from simulations.evidence import server_view, submodels_of
from simulations.outcome import Outcome

_AGAINST: dict[Placement, str] = {
    "local": "It holds against everybody outside the site.",
    "central": "It holds against recipients of the model, not against the server, which adds the noise.",
    "distributed": "It holds against everybody who sees no more than the sums, the server included.",
}
_FEW = 30  # test rows below which one row moves the score by more than three points


def show(outcome: Outcome, console: Console) -> None:
    """Prints the two tables and the words under them."""
    found = submodels_of(outcome)
    beside = table_chain.beside(outcome)
    console.print(_scores(outcome), *([] if found is None else [table_divided.parts(found)]))
    console.print(*([] if beside is None else [beside]), _released(outcome))
    for line in table_chain.unprotected(outcome):
        console.print(line, style="bold red", markup=False, highlight=False, soft_wrap=True)
    for line in words(outcome):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _scores(outcome: Outcome) -> Table:
    job = outcome.job
    metric = "accuracy" if job.task.metric == "accuracy" else "area under the ROC curve"
    table = Table(
        title=f"{job.scenario.title}: {metric} on test rows", title_justify="left", header_style="bold", box=SIMPLE_HEAD
    )
    table.add_column("site", overflow="fold")
    private = ["private"] if job.privacy else []
    for heading in ("train", "test", "home", "elsewhere", "ensemble", "together", *private, "95 %", "pooled"):
        table.add_column(heading, justify="right")
    for site in job.sites:
        data, columns = outcome.data[site], outcome.columns(site)
        rows = [str(len(data.train.y)), str(len(data.test.y))]
        ensemble = outcome.reference.ensemble[site]
        table.add_row(site, *rows, *_row(columns, ensemble, _interval(outcome.interval(site))))
    table.add_section()
    table.add_row("mean", "", "", *_row(outcome.means(), outcome.mean_ensemble, ""))
    return table


def _row(columns: dict[str, float | None], ensemble: float | None, interval: str) -> list[str]:
    """Returns the cells of a site or of the mean; under privacy ``together`` stands without it, then with it."""
    plain = columns["together_without_privacy"]
    together = [columns["together"]] if plain is None else [plain, columns["together"]]
    scores = [_score(value) for value in (columns["home"], columns["elsewhere"], ensemble, *together)]
    return [*scores, interval, _score(columns["pooled"])]


def _released(outcome: Outcome) -> Table:
    private = bool(outcome.spent)
    table = Table(title="What left each site", title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    table.add_column("site", overflow="fold")
    for heading in (
        *(["epsilon", "noise / clip", "noisy steps"] if private else []),
        "messages",
        "bytes",
        "unmasked arrays",
    ):
        table.add_column(heading, justify="right")
    for site in outcome.job.sites:
        egress, spent = outcome.egress(site), outcome.spent.get(site)
        cells = [] if not private else ["0", "-", "0"]
        if spent is not None:
            cells = [round_up(spent.epsilon(), 3), f"{spent.plan.noise_multiplier:.2f}", str(spent.executions)]
        table.add_row(site, *cells, str(egress.messages), f"{egress.bytes:,}", str(egress.unmasked_arrays))
    return table


def words(outcome: Outcome) -> Iterator[str]:
    """Yields what the table means and what it does not show."""
    job, reference = outcome.job, outcome.reference
    private = " without privacy; private: the same with it, the model that this run delivers"
    common = "the common model" if outcome.divided is None else "a site's part of the common model"
    yield (
        "home: own model at home; elsewhere: mean of the other sites' own models here; ensemble: all own models asked"
        f" together; together: {common}"
        f"{private if job.privacy else ''}."
    )
    yield from table_divided.lines(outcome)
    yield from table_chain.lines(outcome)
    counted = {site for record, _ in outcome.trained.rounds if not record.skipped for site in record.answered}
    if silent := [site for site in job.sites if site not in counted]:
        yield f"Contributed to no round, so the common model is the others': {', '.join(silent)}."
    guess, majority = reference.constant, reference.majority
    yield f"Baselines: one guess for everybody {guess:.3f}; each site's commonest label {majority:.3f}."
    if unscored := [site for site in job.sites if outcome.together[site] is None]:
        yield f"No area under the curve, and in no mean, where all test rows have one class: {', '.join(unscored)}."
    if reference.left_out:
        found = ", ".join(f"{one.id} {_score(one.score)}" for one in reference.left_out)
        outside = any(one.id not in job.sites for one in reference.left_out)
        how = "under the common model" if outside else "under a model that the others made without it (no privacy)"
        yield f"A site that never trained, {how}: {found}."
    few = [f"{site} ({len(outcome.data[site].test.y)})" for site in job.sites if len(outcome.data[site].test.y) < _FEW]
    if few:
        yield f"Few test rows, so read the interval and not the score: {', '.join(few)}."
    yield from _privacy(outcome)
    off = [name for name, on in outcome.protections.items() if not on]
    yield f"Protections that were off: {', '.join(off)}. {server_view(outcome)}"
    yield (
        f"{len(outcome.trained.rounds) - outcome.skipped} of {job.task.training.rounds} rounds completed"
        f" in {(outcome.finished - outcome.started).total_seconds():.1f} s. Home, elsewhere, pooled and all scores are"
        " the experimenter's view: they need everybody's rows, the app never sends them, and no epsilon covers them."
    )
    here = Path(outcome.folder)
    folder = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    yield f"Report: {folder}/report.html"
    # In an environment that is not activated, the bare name would not be found.
    command = "collegium" if shutil.which("collegium") else os.path.relpath(sys.argv[0])
    yield f"Check:  {command} verify {folder}/report.html --trust {folder}/trusted-keys.txt"


def _privacy(outcome: Outcome) -> Iterator[str]:
    if not outcome.job.privacy:
        yield "PRIVACY IS OFF: no differential privacy was applied; the model may give away records it was trained on."
    for claim in outcome.claims:
        worst, plan = claim.worst, claim.plan
        epsilon, unit = worst.epsilon(), str(plan.unit)
        poisson = isinstance(plan, RecordPlan) and plan.sampling.type is SamplingType.POISSON
        whom = "any site" if plan.unit is Unit.SITE else f"one {unit} of any site"
        yield (
            f"Privacy: epsilon at most {round_up(epsilon, 3)} at delta {plan.delta} for {whom} (unit: {unit};"
            f" neighbours: one {unit} zeroed out; sampling: {'Poisson' if poisson else 'full batch'};"
            f" accountant: {plan.accountant}); {round_up(worst.epsilon(Relation.REPLACE_ONE), 3)} if one {unit} may be"
            f" replaced by any other. {_AGAINST[claim.placement]}"
        )
        yield (
            f"In words: a 50 % suspicion that a {unit} took part rises to at most"
            f" about {chance(epsilon)[1]}, except with probability about {plan.delta}."
        )
        if (lifetime := worst.lifetime) is not None:
            yield (
                f"Lifetime: all runs on {lifetime.asset} cost at most epsilon {round_up(lifetime.epsilon, 3)}"
                f" of its budget {lifetime.budget.epsilon} ({filter_name(lifetime.budget)})."
            )
    if outcome.trained.stopped:
        yield f"STOPPED before the last round, the last model is kept: {outcome.trained.stopped}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.2f}-{ends[1]:.2f}"
