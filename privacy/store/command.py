"""``collegium site``: what a site's own people ask their machine. Needs neither torch nor flwr."""

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from privacy.dp.events import FULL_BATCH, Event, GaussianEvent, Sampling, SamplingType, event_from_json
from privacy.errors import ConfigError, PrivacyError
from privacy.policy.command import policy
from privacy.store.books import Books, Line, State
from privacy.store.budgets import Asset, Budget, Unlimited, epsilon_at_most, filter_name
from privacy.store.enroll_command import enroll
from privacy.store.join_command import charter, declare, install_certificate, join
from privacy.store.ledger import Ledger
from privacy.store.log_command import log
from privacy.store.site_folder import SiteFolder

site = typer.Typer(name="site", no_args_is_help=True, add_completion=False)
site.add_typer(log)
site.add_typer(policy)

_Folder = Annotated[Path, typer.Argument(show_default=False, help="The site's folder.")]


@site.callback()
def overview() -> None:
    """Look after a site: its keys and papers, its agent, its policy, its privacy budget, its log."""


site.command("enroll")(enroll)
for _name, _function in (("join", join), ("install-certificate", install_certificate), ("charter", charter)):
    site.command(_name)(_function)
site.command("declare")(declare)


@site.command("start")
def start(folder: _Folder) -> None:
    """Run the site's agent until it is told to stop: it reaches out to the coordinator and answers what may pass."""
    _clients("site_command").start(folder)


@site.command("pause")
def pause(
    folder: _Folder,
    resume: Annotated[bool, typer.Option("--resume", help="Take part again.")] = False,
) -> None:
    """Stop at once: nothing further is sent, not even what is being computed; or take part again."""
    opened = SiteFolder(folder)
    opened.pause(paused=not resume)
    typer.echo(f"{opened.holder.id} takes part again" if resume else f"{opened.holder.id} is paused: nothing is sent")


@site.command("check")
def check(
    folder: _Folder,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the coordinator for its clock.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check everything that a run will need: data, certificate, clock, disk, charter, policy, modes.

    Exit code 1 if something would stop a run here.
    """
    _clients("preflight").check_command(folder, offline=offline, as_json=as_json)


def _clients(module: str) -> Any:
    """Returns a module of a site's own packages, which the base installation does without."""
    try:
        return importlib.import_module(f"clients.{module}")
    except ModuleNotFoundError as error:
        hint = "In the source's folder: pip install -c constraints.txt '.[site]'."
        raise ConfigError(f"{error.name} is not installed", hint=hint) from error


@site.command("ledger")
def ledger(  # noqa: PLR0913, PLR0917 - a command's options are its arguments
    database: Annotated[Path, typer.Argument(show_default=False)],
    asset: Annotated[str | None, typer.Option(help="Only this asset, by its name or an alias.")] = None,
    would: Annotated[str | None, typer.Option(help="A planned run, as the JSON of an event.")] = None,
    noise_multiplier: Annotated[str | None, typer.Option(help="A planned run of Gaussian noise: noise / clip.")] = None,
    rate: Annotated[str, typer.Option(help="Its Poisson sampling rate; 1 takes all records.")] = "1",
    steps: Annotated[int, typer.Option(help="Its noisy steps, retries included.")] = 1,
    purpose: Annotated[str, typer.Option(help="What the planned run is for.")] = "training",
    claim: Annotated[str, typer.Option(help="What it protects: record, patient, site.")] = "record",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show the budget ledger DATABASE: what was released, what is spent and left, what a planned run would cost.

    Exit code 1 if the planned run would be refused, or if the ledger's entries are not those that were written.
    """
    planned = _planned(would, noise_multiplier, rate, steps)
    with Ledger(database).reading() as books:
        shown = list(books.assets.values()) if asset is None else [books.asset(asset)]
        statement = _statement(books, shown)
        answer = None if planned is None else _answer(books, shown, planned, purpose=purpose, claim=claim)
    if as_json:
        typer.echo(json.dumps({**statement, "planned": answer}, indent=2, ensure_ascii=False))
    else:
        _show(database, statement, answer)
    raise typer.Exit(0 if answer is None or answer["allowed"] else 1)


def _planned(would: str | None, multiplier: str | None, rate: str, steps: int) -> Event | None:
    if would is not None and multiplier is not None:
        raise ConfigError("--would and --noise-multiplier both describe the planned run", hint="Give one of them.")
    try:
        if would is not None:
            return event_from_json(json.loads(would))
        if multiplier is None:
            return None
        share = Decimal(rate)
        sampling = FULL_BATCH if share == 1 else Sampling(SamplingType.POISSON, share)
        return GaussianEvent(Decimal(multiplier), sampling, steps)
    except (ValueError, RecursionError, InvalidOperation, PrivacyError) as error:
        reason = str(error) if isinstance(error, PrivacyError) else "it is not written as one"
        raise ConfigError(f"the planned run is no event that has a price: {reason}") from None


def _statement(books: Books, shown: Sequence[Asset]) -> dict[str, Any]:
    """Returns everything there is to show, decimals as strings; costs are rounded up, what is left is rounded down."""
    assets = [
        {
            "asset": asset.name,
            "aliases": list(books.aliases(asset.name)),
            "budgets": [_standing(books, asset, claim, budget) for claim, budget in asset.budgets.items()],
        }
        for asset in shown
    ]
    names = {name for asset in shown for name in (asset.name, *books.aliases(asset.name))}
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in books.lines.values():
        if line.debit.asset in names:
            groups.setdefault((*line.debit.plan, event_words(line.debit.event)), []).append(line)
    return {
        "ledger": books.ledger,
        "simulation": books.simulation,
        "head": {"seq": books.head.seq, "hash": books.head.hash.hex()},
        "assets": assets,
        "events": [_released(lines) for lines in groups.values()],
    }


def _standing(books: Books, asset: Asset, claim: str, budget: Budget) -> dict[str, Any]:
    def spent(purpose: str | None, share: Decimal) -> dict[str, Any]:
        events = books.spent(asset.name, claim, purpose)
        counted = {"executions": sum(event.count for event in events)}
        if isinstance(budget, Unlimited):
            return {**counted, "spent": None, "epsilon": None, "left": None}
        cost = budget.spent(events)
        left = max(Decimal(0), share - cost / budget.limit).quantize(Decimal("0.0001"), rounding=ROUND_FLOOR)
        return {**counted, "spent": str(cost), "epsilon": epsilon_at_most(budget, cost), "left": str(left)}

    limits: dict[str, str | None] = dict.fromkeys(("filter", "epsilon_budget", "delta", "limit"))
    if not isinstance(budget, Unlimited):
        limits = {
            "filter": filter_name(budget),
            "epsilon_budget": f"{budget.epsilon:f}",
            "delta": f"{budget.delta:f}",
            "limit": str(budget.limit),
        }
    purposes = [
        {"purpose": purpose, "share": f"{share:f}", **spent(purpose, share)}
        for purpose, share in asset.purposes.items()
    ]
    return {"claim": claim, **limits, **spent(None, Decimal(1)), "purposes": purposes}


def _released(lines: Sequence[Line]) -> dict[str, Any]:
    first = lines[0].debit
    return {
        "asset": first.asset,
        "run": first.run,
        "purpose": first.purpose,
        "claim": first.claim,
        "rounds": [min(line.debit.round for line in lines), max(line.debit.round for line in lines)],
        "event": first.event.times(1).to_json(),
        "words": event_words(first.event),
        "executions": sum(line.debit.event.count for line in lines),
        "limit": first.limit,
        "attempts": {str(state): sum(line.state is state for line in lines) for state in State},
    }


def _answer(books: Books, shown: Sequence[Asset], event: Event, *, purpose: str, claim: str) -> dict[str, Any]:
    if len(shown) != 1:
        raise ConfigError("a planned run is about one asset", hint="Name it with --asset.")
    (asset,) = shown
    if claim not in asset.budgets or purpose not in asset.purposes:
        raise ConfigError(f"asset {asset.name} has no budget for {purpose} per {claim}")
    answer: dict[str, Any] = {"asset": asset.name, "event": event.to_json(), "words": event_words(event)}
    refused, budget = "", asset.budgets[claim]
    try:
        if not isinstance(budget, Unlimited):
            spent, cost = budget.spent(books.spent(asset.name, claim)), budget.cost(event)
            answer["epsilon_alone"] = epsilon_at_most(budget, cost)
            answer["epsilon_after"] = epsilon_at_most(budget, spent + cost)
            # What other purposes may use is as good as spent for this one.
            used = budget.spent(books.spent(asset.name, claim, purpose))
            others = (1 - asset.purposes[purpose]) * budget.limit
            answer["executions_that_fit"] = budget.room(max(spent, used + others), event)
        books.check_budget(asset.name, claim, [(purpose, event)])
    except PrivacyError as error:
        refused = ". ".join(error.lines())
    return {**answer, "allowed": not refused, "refused": refused}


def event_words(event: Event) -> str:
    """Describes a mechanism for people, without its number of executions."""
    if not isinstance(event, GaussianEvent):
        multiplier = event.variance.sqrt() / event.l2
        return f"Skellam {multiplier:.4f}, norm {event.l2:f}"
    sampling = event.sampling
    batches = "all records" if sampling.type is SamplingType.FULL else f"Poisson {sampling.rate:f}"
    cap = "" if sampling.cap is None else f" of {sampling.n_records}, at most {sampling.cap}"
    group = "" if event.group == 1 else f", {event.group} records a person"
    return f"Gaussian {event.noise_multiplier:f}, {batches}{cap}{group}"


def _show(path: Path, statement: dict[str, Any], answer: dict[str, Any] | None) -> None:
    width = None if sys.stdout.isatty() else 120  # piped output gets no terminal's width to guess from
    console = Console(width=width, highlight=False, markup=False, emoji=False)
    head = statement["head"]
    lines = [f"{path}: {head['seq']} entries, chain intact, head {head['hash'][:16]}"]
    if statement["simulation"]:
        lines.append("It belongs to a simulation: assets without a budget are allowed in it.")
    console.print(*lines, sep="\n", soft_wrap=True)
    for asset in statement["assets"]:
        console.print("", *_standing_words(asset), sep="\n", soft_wrap=True)
        if any(len(budget["purposes"]) > 1 for budget in asset["budgets"]):
            console.print(_purpose_table(asset["budgets"]))
        names = (asset["asset"], *asset["aliases"])
        console.print(_event_table([one for one in statement["events"] if one["asset"] in names], asset["asset"]))
    if answer is not None:
        console.print(*_answer_words(answer), sep="\n", soft_wrap=True)


def _standing_words(asset: dict[str, Any]) -> Iterator[str]:
    others = f", also called {', '.join(asset['aliases'])}" if asset["aliases"] else ""
    yield asset["asset"] + others
    for one in asset["budgets"]:
        what = f"per {one['claim']}, for ever: "
        if one["filter"] is None:
            yield f"{what}no budget, {one['executions']} executions"
            continue
        yield (
            f"{what}epsilon {one['epsilon']} of {one['epsilon_budget']} is spent at delta {one['delta']}, "
            f"{_percent(one['left'])} of the sum is left ({one['filter']})"
        )


def _purpose_table(budgets: Sequence[dict[str, Any]]) -> Table:
    table = _table(("purpose", "claim"), ("executions", "epsilon", "at most", "left"))
    for budget in budgets:
        for one in budget["purposes"]:
            cells = (str(one["executions"]), one["epsilon"] or "-", _percent(one["share"]), _percent(one["left"]))
            table.add_row(one["purpose"], budget["claim"], *cells)
    return table


def _event_table(events: Sequence[dict[str, Any]], asset: str) -> Table:
    table = _table(("run", "mechanism"), ("purpose", "claim", "rounds", "executions", "released"))
    for one in events:
        first, last = one["rounds"]
        run = one["run"] if one["asset"] == asset else f"{one['run']} ({one['asset']})"
        rounds = str(first) if first == last else f"{first} to {last}"
        attempts = one["attempts"]
        released = f"{attempts['released']} of {sum(attempts.values())}"
        executions = f"{one['executions']} of {one['limit']}"
        table.add_row(run, one["words"], one["purpose"], one["claim"], rounds, executions, released)
    return table


def _table(wide: Sequence[str], narrow: Sequence[str]) -> Table:
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for heading in wide:
        table.add_column(heading, overflow="fold", min_width=12)
    for heading in narrow:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _answer_words(answer: dict[str, Any]) -> Iterator[str]:
    count = answer["event"]["count"]
    yield f"Planned on {answer['asset']}: {answer['words']}, {count} execution{'' if count == 1 else 's'}."
    if "epsilon_after" in answer:
        alone, after = answer["epsilon_alone"], answer["epsilon_after"]
        yield f"It costs epsilon {alone} alone, {after} with everything before it."
        yield f"The budget has room for {answer['executions_that_fit']} of its executions."
    yield "It would be allowed." if answer["allowed"] else f"It would be refused: {answer['refused']}"


def _percent(share: str | None) -> str:
    return "-" if share is None else f"{(Decimal(share) * 100).normalize():f} %"
