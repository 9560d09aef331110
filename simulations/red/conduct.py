"""Members whose parties break the rules of a run: what they send, to whom, and what they pay."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clients.app import Member as SiteMember
from clients.work import Work, contribute
from privacy.errors import FederationError
from privacy.secagg import wire
from privacy.store.books import Link
from privacy.store.budgets import Debit
from privacy.store.ledger import Ledger
from server.exchange import Answers, Exchange
from server.secure import SecureCollector
from simulations.accounts import Accounts
from simulations.data.datasets import SiteData
from simulations.holder import Holder
from simulations.job import Job
from simulations.members import member_of
from simulations.red.member import BrokenRun
from simulations.red.patching import swapped, wrapped
from strategies.contribution import Contribution
from strategies.messages import RoundTask
from strategies.task import SiteId

_ONE = SiteId("cleveland")


def _asking(change: Callable[[RoundTask, str], RoundTask]) -> AbstractContextManager[None]:
    """Alters what the coordinator asks of single sites."""
    return wrapped(
        SecureCollector, "_first", lambda first: lambda self, task, send: first(self, change(task, send.site), send)
    )


def _other_model(task: RoundTask, site: str) -> RoundTask:
    if site != _ONE:
        return task
    return replace(task, arrays={name: values + values.dtype.type(1) for name, values in task.arrays.items()})


def _replayed(task: RoundTask, _site: str) -> RoundTask:
    return replace(task, round=1, attempt=1)


def _mislabelled(task: RoundTask, _site: str) -> RoundTask:
    return replace(task, round=task.round + 1)


def _other_survivors() -> AbstractContextManager[None]:
    def around(ask: Any) -> Callable[..., Answers]:
        def lying(self: Exchange, kind: str, questions: Mapping[SiteId, bytes], *, group: str) -> Answers:
            told = {site: _without(site, data, list(questions)) for site, data in questions.items()}
            answers: Answers = ask(self, kind, told, group=group)
            return answers

        return lying

    return wrapped(Exchange, "ask", around)


def _without(site: SiteId, data: bytes, sites: Sequence[SiteId]) -> bytes:
    """Tells the first half of the sites that the last one dropped out, and the others that the first one did."""
    try:
        message = wire.decode(data, limit=2**30)
    except FederationError:
        return data
    if not isinstance(message, wire.Surv):
        return data
    gone = sites[-1] if sites.index(site) < len(sites) // 2 else sites[0]
    return replace(message, survivors=tuple(one for one in message.survivors if one != gone)).encode()


def _with_metric() -> AbstractContextManager[None]:
    def told(*arguments: Any, **options: Any) -> Work:
        work = contribute(*arguments, **options)
        return replace(work, contribution=Contribution(work.contribution.arrays, {"loss": 0.5}))

    return swapped(contribute, told)


def _unpaid(round_number: int) -> Callable[[], AbstractContextManager[None]]:
    def around(reserve: Any) -> Callable[..., tuple[Link, ...]]:
        def forgetful(self: Ledger, debits: Sequence[Debit]) -> tuple[Link, ...]:
            links: tuple[Link, ...] = () if debits[0].round == round_number else reserve(self, debits)
            return links

        return forgetful

    return lambda: wrapped(Ledger, "reserve", around)


def _other_job() -> AbstractContextManager[None]:
    def misled(job: Job, data: SiteData, folder: Path, accounts: Accounts, holder: Holder | None = None) -> SiteMember:
        return member_of(replace(job, seed=job.seed + 1) if data.id == _ONE else job, data, folder, accounts, holder)

    return swapped(member_of, misled)


MEMBERS: tuple[BrokenRun, ...] = (
    BrokenRun(
        "another model to one site", "the coordinator sends one site other parameters", lambda: _asking(_other_model)
    ),
    BrokenRun("round replayed", "the coordinator asks for round 1 again", lambda: _asking(_replayed)),
    BrokenRun("round under another number", "sites pay for other rounds than they sign", lambda: _asking(_mislabelled)),
    BrokenRun("two lists of survivors", "the coordinator opens a sum for each half of the sites", _other_survivors),
    BrokenRun("unpriced metric", "sites send their loss beside the update", _with_metric, {"secagg": False}),
    BrokenRun("round not debited", "sites do not pay for round 2", _unpaid(2)),
    BrokenRun("swapped settings", "one site runs other settings than all agreed to", _other_job),
)
