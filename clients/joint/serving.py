"""A site's resident process for joint answers, put together from its folder."""

import secrets
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from clients.channel.credentials import Identity
from clients.channel.reception import Service
from clients.channel_gate import ChannelGate
from clients.joint.conformance import check_answers
from clients.joint.member import Member
from clients.joint.model import OwnModel
from clients.joint.service import ENSEMBLE, LOCAL, Desk, EnsembleService, LocalService
from privacy.secagg.suite import RealSuite, fastest_keystream
from privacy.store.admissions import Admissions
from privacy.store.answers import ANSWERS_FILE, Answers
from privacy.store.log import Record, ledger_head
from privacy.store.run_folder import LEDGER_FILE
from privacy.store.site_folder import SiteFolder
from strategies.study import Study


def services_of(
    folder: SiteFolder, own: Identity, study: Study, model: OwnModel, now: Callable[[], datetime]
) -> Mapping[str, Service]:
    """Returns the services of a site, by kind.

    Args:
      folder: Its own.
      own: Whose charter is asked for at every batch.
      study: What a query means.
      model: What answers.
      now: The site's clock, with a zone.

    Raises: FederationError: A file of the folder does not hold, or the noise of answers does not pass its tests.
    """
    check_answers(own.charter(), study, secrets.token_bytes, who=own.site)
    log, ledger = folder.log(), folder.ledger()

    def record(entry: Record) -> None:
        log.append([entry], folder.identity)

    def note_ledger() -> None:
        with ledger.reading() as books:
            record(ledger_head(books.ledger, books.head))

    gate = ChannelGate.of_folder(folder, now)
    desk = Desk(
        own.site,
        model.source,
        model.asset,
        study,
        own.charter,
        gate,
        Answers(folder.path / ANSWERS_FILE),
        ledger,
        record,
        note_ledger,
    )
    member = Member(
        site=own.site,
        key=own.key,
        terms=desk.terms,
        score=model.score,
        n_inputs=study.task.n_inputs,
        admissions=Admissions(folder.path / LEDGER_FILE),
        allow=desk.allow,
        pay=desk.pay,
        suite=RealSuite(fastest_keystream(time.perf_counter)),
        entropy=secrets.token_bytes,
    )
    return {ENSEMBLE: EnsembleService(desk, member), LOCAL: LocalService(desk, member, model)}
