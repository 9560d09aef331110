"""A real site's way to its holder in a run: what leaves is priced by its own records, paid for and on the log first."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from clients.chain import outgoing
from clients.chain.payer import event, ledger_name
from clients.chain.released import Releaser
from clients.channel.session import ChannelClosedError
from privacy.dp.events import Event
from privacy.store.site_folder import SiteFolder
from strategies.messages import STAGE, SecureTask
from strategies.release import Release
from strategies.task import SiteId
from tests.clients.invited import Parties
from tests.clients.node import body_of, refusal
from tests.clients.test_judge import CUT as BY_HUB
from tests.federation import ASSET, CHANNEL_POLICY, Federation, federate, study_of

SITE = "alba"
ROWS = 10
TRAINING = ("alba", "brno", "cork")
CUT = BY_HUB.replace('"hub"', '"dole"')


def of_patients(path: Path, cut: str = CUT) -> Federation:
    """Each patient of the site has ten rows."""
    text = study_of(text='patient = "id"\n' + cut)
    made = federate(path, study=text, asset='claims = ["patient"]', policy=CHANNEL_POLICY)
    header, *rows = made.data(SITE).read_text().splitlines()
    table = [f"p{place // ROWS},{row.partition(',')[2]}" for place, row in enumerate(rows)]
    made.data(SITE).write_text("\n".join([header, *table]) + "\n")
    made.rewrite(
        SITE, "site.toml", old="\n[asset.", new='\n[channel]\n[channel.peers]\ndole = "127.0.0.1:9"\n\n[asset.'
    )
    return made


class Holder:
    """In the place of a chain over the channel: notes how things stand when the first step begins, and is gone."""

    def __init__(self, folder: SiteFolder) -> None:
        self.folder = folder
        self.paid: list[Event] = []
        self.logged = False

    def per_record(self, *_: object) -> None:
        with self.folder.ledger().reading() as books:
            self.logged = self.folder.log().ledger_head(books.ledger) == books.head
            self.paid = [line.debit.event for line in books.lines.values()]
        raise ChannelClosedError("the holder is gone")

    @contextmanager
    def opened(self, _plan: object, _dial: object, _own: object, _releaser: Releaser, **_: Any) -> Iterator["Holder"]:
        yield self


def test_a_run_pays_for_the_patient_with_most_rows_and_logs_it_before_anything_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parties = Parties(of_patients(tmp_path / "north"))
    job, holder = parties.job("record", sites=TRAINING), Holder(parties.federation.folders[SITE])
    monkeypatch.setattr(outgoing, "open_chain", holder.opened)
    body_of(parties.hello(SITE, parties.signed(job)))
    both = SecureTask.decode(parties.start(SITE, job))
    ends = replace(both.task, arrays=job.plan.held_of(SiteId(SITE), both.task.arrays))
    assert "the holder is gone" in refusal(parties.ask(SITE, STAGE, replace(both, task=ends).encode()))
    (noisy,) = job.chain.released_by(SiteId(SITE)) if job.chain else ()
    assert isinstance(noisy, Release)
    assert holder.paid == [event(noisy, 2, ROWS)]
    assert holder.logged
    (debit,) = holder.folder.ledger().debits(ASSET)
    assert (debit.run, debit.claim) == (ledger_name(noisy), "patient")


def test_a_site_whose_budget_covers_one_row_a_patient_but_not_ten_is_not_invited_in_vain(tmp_path: Path) -> None:
    parties = Parties(of_patients(tmp_path / "north", CUT.replace("noise = 20.0", "noise = 15.0")))
    job = parties.job("record", sites=TRAINING, epsilon=Decimal("1.9"))
    assert "what is left of the budget" in refusal(parties.hello(SITE, parties.signed(job)))
    assert not parties.debits(SITE)
