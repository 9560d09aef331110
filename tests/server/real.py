"""A run of real sites to test with: four hospitals, three rounds of the real machines under masks, and all who sign.

Switzerland is lost in round 2 after it sent shares; Hungary's gate refused one request; each site keeps a log, and has
witnessed the server's.
"""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from privacy.audit import conformance_claim, envelope, report, statement
from privacy.audit.checkpoint import Checkpoint, sign
from privacy.audit.egress import Sent
from privacy.audit.site_statement import Refusal, SiteStatement
from privacy.audit.statement import Statement
from privacy.audit.transcript import AttemptRecord
from privacy.audit.verify import Verdict, verify
from privacy.charter.document import Charter, Floors, from_body
from privacy.charter.signatures import SignedCharter
from privacy.dp.events import merged
from privacy.dp.plan import RecordPlan, Unit
from privacy.secagg.context import Block, Region
from privacy.store.log import Log, Record
from server.claims import PrivacyClaim, Spent, epsilon_claim
from server.evidence import RealRun, snapshot
from server.rounds import RoundRecord
from strategies.invitation import invite, resolve_job
from strategies.job import Job
from strategies.study import Study, read_study
from strategies.task import SiteId
from tests.privacy.audit import masked, measured
from tests.privacy.charter import example
from tests.privacy.secagg.parties import identity

SITES = tuple(map(SiteId, masked.SITES))
HUB = example.key("identity of hub")
STRANGER = example.key("nobody's")
RUN = "town-0001"
APPLICATION = "ab" * 32
MODEL = b"a model"
MODEL_SHA256 = hashlib.sha256(MODEL).hexdigest()
STARTED = datetime(2027, 3, 1, 12, tzinfo=UTC)
N_TRAIN = {"cleveland": 199, "hungary": 172, "switzerland": 90, "va": 85}
STUDY = """
name = "clinics"
title = "Illness in four clinics"
sites = ["cleveland", "hungary", "switzerland", "va"]
features = [{ name = "x{}", kind = "continuous", range = [0, 1], count = 13 }]

[target]
name = "ill"

[model]
kind = "logistic"

[training]
rounds = 3
learning_rate = 0.5
clip = 1.0
"""


DIVIDED = (
    STUDY.replace('"logistic"', '"mlp"\nhidden = 4')
    + """
[submodels]
[[submodels.parts]]
name = "narrow"
sites = ["switzerland"]
width = 0.5
"""
)


@cache
def study(text: str = STUDY) -> Study:
    return read_study(text, where="study.toml")


def job(*privacy: str, text: str = STUDY) -> Job:
    terms: dict[str, Any] = {"unit": Unit.RECORD, "epsilon": Decimal(1), "delta": Decimal("0.001")}
    numbers = {"rounds": Decimal(3), "retries": Decimal(0), "batch": Decimal(0), "local_steps": Decimal(1)}
    return resolve_job(study(text), "fedavg", numbers, sites=SITES, seed=1, privacy=privacy, **terms)


def body(**changes: Any) -> dict[str, Any]:
    """A charter of the masked rounds' roster, which lists a site that takes no part."""
    wide = {"low": "0", "high": "100"}
    numbers = ("rounds", "retries", "local_steps", "batch", "learning_rate", "server_lr")
    sites = [
        {
            **example.site(name),
            "identity": base64.b64encode(identity(name).public_key).decode(),
            "uri": f"spiffe://town/site/{name}",
        }
        for name in sorted((*masked.SITES, "spare"))
    ]
    ours: dict[str, Any] = {
        "federation": "town",
        "server": example.server(uri="spiffe://town/server/hub"),
        "sites": sites,
        "officers": [example.officer(site["id"]) for site in sites],
        "studies": {"clinics": study().digest},
        "strategies": {"fedavg": {name: wide for name in numbers if name in _told()}, "fedprox": {"mu": wide}},
        "assets": {"records": {"purposes": ["training"], "epsilon": "2", "delta": "0.001"}},
        "floors": {"cohort": 4, "survivors": 3, "threshold": 3, "cover": 3},
        "unsafe_without_dp": True,
    }
    return example.body(**{**ours, **changes})


@cache
def _told() -> frozenset[str]:
    return frozenset(_invitation(job(), "0" * 64).proposal(job(), (), Floors(3, 3, 2, 3)).parameters)


def _invitation(of: Job, charter: str) -> Any:
    names = {"federation": "town", "run": RUN, "charter": charter, "application": APPLICATION}
    return invite(of, **names, study=study().digest, purpose="training", asset="records")


def chain(charter: Charter, *, signatures: int = 3) -> bytes:
    """The charter's one version, signed by that many officers."""
    made = SignedCharter(charter, {})
    for officer in charter.officers[:signatures]:
        made = made.signed_by(example.key(officer.name))
    return made.encode()


def masked_round(of: Job, number: int, **changes: Any) -> AttemptRecord:
    """One round of a job by the real machines, whose sum is opened."""
    run = hashlib.sha256(RUN.encode()).digest()[:16]
    regions = tuple(Region(one.holders, (Block(one.positions.size, 1000),)) for one in of.plan.regions())
    return masked.attempt(number, **{"job": bytes.fromhex(of.digest), "run": run, "regions": regions, **changes})


_ROUNDS: dict[str, bytes] = {}


def rounds(of: Job) -> bytes:
    """The transcript of three rounds of a job."""
    if of.digest not in _ROUNDS:
        lost = {2: {"switzerland": "MSK"}}
        _ROUNDS[of.digest] = masked.written(masked_round(of, n, lost=lost.get(n)) for n in (1, 2, 3))
    return _ROUNDS[of.digest]


def payloads(site: str) -> tuple[Sent, ...]:
    """What a site sent; the last message of round 2 is missing where it was lost."""
    sent = [Sent.of("query.hello", "0", f"hello {site}".encode())]
    for number in "123":
        sent.append(Sent.of("train.masked", number, f"{site} keys {number}".encode()))
        phases = 1 if (site, number) == ("switzerland", "2") else 3
        sent += [Sent.of("query.secagg", number, f"{site} {number} {k}".encode() * k) for k in range(1, phases + 1)]
    return tuple(sent)


@dataclass(frozen=True)
class Scene:
    """Everything that a run leaves at its server and its sites."""

    job: Job
    charter: Charter
    log: Log
    witnessed: Mapping[str, bytes]

    @classmethod
    def of(cls, folder: Path, *privacy: str, charter: Mapping[str, Any] | None = None, text: str = STUDY) -> "Scene":
        """Sets the scene; the log, of four entries, goes into a new file of the folder."""
        log = Log.create(folder / "log.db", "town/server/hub", HUB)
        early = log.note()
        late = log.append([Record("run", {"id": RUN, "what": "started"})], HUB)
        log.append([Record("run", {"id": RUN, "what": what}) for what in ("round", "ended")], HUB)
        witnessed: dict[str, bytes] = {site: early if site == "va" else late for site in SITES}
        return cls(job(*privacy, text=text), from_body(body(**(charter or {}))), log, witnessed)

    def plan(self, site: str) -> RecordPlan:
        return RecordPlan.calibrated(
            target=Decimal(1),
            delta=Decimal("0.001"),
            clip=Decimal(1),
            n_records=N_TRAIN[site],
            batch=0,
            steps_per_attempt=1,
            max_attempts=3,
        )

    def statement(self, site: str, **changes: Any) -> SiteStatement:
        """What a site truthfully states, with changes."""
        plans = [self.plan(site)] if self.job.privacy else []
        debits = [
            {"claim": plan.claim, "round": n, "attempt": 1, "event": plan.event(1).to_json()}
            for n in (1, 2, 3)
            for plan in plans
        ]
        own = Checkpoint(f"town/site/{site}", 7, hashlib.sha256(site.encode()).digest())
        refusals = Refusal.counted([("strategy", "fedsgd")] if site == "hungary" else [])
        truth = SiteStatement(
            federation="town",
            site=site,
            run=RUN,
            charter=self.charter.digest,
            application=APPLICATION,
            study=study().digest,
            job=self.job.digest,
            conformance=hashlib.sha256(conformance_claim.said_by(self._told(), site)).hexdigest(),
            allowed=4,
            refusals=refusals,
            egress=payloads(site),
            debits=tuple(debits),
            log=sign(own, identity(site)),
            witnessed=self.witnessed[site],
        )
        return replace(truth, **changes)

    def _claims(self) -> tuple[PrivacyClaim, ...]:
        spent: dict[str, Spent] = {
            site: Spent(self.plan(site), merged([self.plan(site).event(1)] * 3)) for site in SITES if self.job.privacy
        }
        return (PrivacyClaim("local", spent),) if spent else ()

    def _told(self) -> Statement:
        """Of the report, what the sites said at the roll call."""
        epsilons = [epsilon_claim(claim, len(SITES)) for claim in self._claims()]
        claims = [measured.conformance_claim(epsilons)] if epsilons else []
        return Statement("", "", {"claims": claims})

    def run(self, **changes: Any) -> RealRun:
        """The run as its coordinator knows it, with changes."""
        signed = {site: self.statement(site).sign(identity(site)) for site in SITES}
        rows = [RoundRecord(n, 1, SITES, {}, skipped=False, seconds=1.0) for n in (1, 2, 3)]
        rows[1] = replace(rows[1], answered=tuple(site for site in SITES if site != "switzerland"))
        rows[1] = replace(rows[1], missing={SiteId("switzerland"): "dropped out of the sum"})
        note, grown = snapshot(self.log)
        truth = RealRun(
            job=self.job,
            invitation=_invitation(self.job, self.charter.digest),
            title="Illness in four clinics",
            data="records of four clinics",
            started=STARTED,
            finished=STARTED.replace(hour=13),
            charters=chain(self.charter),
            statements=signed,
            manifest={site: payloads(site) for site in SITES},
            transcript=rounds(self.job),
            model=MODEL,
            rounds=tuple(rows),
            attempts=sum(row.attempts for row in rows),
            claims=self._claims(),
            conformance=self._told().claim(conformance_claim.CLAIM),
            log=note,
            growth=grown,
        )
        return replace(truth, **changes)


def forged(body: dict[str, Any]) -> bytes:
    """The signed report of a server that skips the checks a truthful one makes."""
    return envelope.sign(statement.encode(body, MODEL_SHA256), HUB)


def checked(signed: bytes, run: RealRun, lines: bytes, **changes: Any) -> Verdict:
    """Verifies with every file at hand, or with changes."""
    at_hand: dict[str, Any] = {
        "trusted": {HUB.public_key},
        "model_sha256": MODEL_SHA256,
        "transcript": run.transcript,
        "charters": run.charters,
        "statements": lines,
    }
    return verify(signed, **{**at_hand, **changes})


SIGNER = report.signer_entry(HUB, "server")
