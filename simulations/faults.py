"""Sites that go wrong on purpose, so that anyone can see what a run does about it: ``--set fault.va=silent``."""

import threading
import time

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict

from privacy.errors import ConfigError
from simulations.local_grid import SiteApp
from strategies.contribution import Contribution
from strategies.messages import MASKED, RECORD, STAGE, TRAIN, RoundReply

FAULTS = {
    "silent": "never answers a training task",
    "late": "answers every training task after 3 seconds (late:SECONDS for another delay)",
    "nan": "returns updates that are not numbers",
    "raises": "raises an exception in every training task",
}


def check_fault(fault: str) -> None:
    """Refuses a fault that does not exist. Raises: ConfigError."""
    kind, _, seconds = fault.partition(":")
    if kind not in FAULTS or (seconds and (kind != "late" or not seconds.replace(".", "", 1).isdecimal())):
        known = "; ".join(f"{name}: {meaning}" for name, meaning in FAULTS.items())
        raise ConfigError(f"there is no fault {fault!r}", hint=f"Known: {known}.")


def with_fault(app: SiteApp, fault: str) -> SiteApp:
    """Wraps a site's app so that its training goes wrong as ``fault`` says; roll calls are answered."""
    kind, _, seconds = fault.partition(":")

    def faulty(message: Message, context: Context) -> Message:
        if message.metadata.message_type not in {TRAIN, MASKED, STAGE}:
            return app(message, context)
        if kind == "silent":
            threading.Event().wait()  # the thread dies with the process
        if kind == "late":
            time.sleep(float(seconds or 3))
        if kind == "raises":
            raise RuntimeError("a fault on purpose")
        reply = app(message, context)
        return _poisoned(reply, message) if kind == "nan" else reply

    return faulty


def _poisoned(reply: Message, message: Message) -> Message:
    if reply.has_error():
        return reply
    if message.metadata.message_type != TRAIN:  # under masks a site refuses such an update itself; this one babbles
        return Message(RecordDict({RECORD: ConfigRecord({RECORD: b"nan"})}), reply_to=message)
    honest = RoundReply.decode(reply.content[RECORD][RECORD])  # type: ignore[arg-type]
    arrays = {name: np.full_like(vector, np.nan) for name, vector in honest.contribution.arrays.items()}
    lie = RoundReply(honest.site, honest.round, honest.attempt, Contribution(arrays))
    return Message(RecordDict({RECORD: ConfigRecord({RECORD: lie.encode()})}), reply_to=message)
