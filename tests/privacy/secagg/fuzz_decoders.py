"""Every decoder of bytes from strangers: a value with one spelling, or the error that its caller expects."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from privacy.audit import envelope, statement
from privacy.errors import ConfigError, FederationError, RemoteProtocolError
from privacy.keys.signing import SigningKey
from privacy.secagg import encoding, wire
from privacy.secagg.context import RoundContext
from strategies.contribution import Contribution
from strategies.messages import Hello, RoundReply, RoundTask, SecureTask
from strategies.task import SiteId
from tests.privacy.secagg.fuzz_machines import Target, recorded
from tests.privacy.secagg.fuzz_mutate import JSON, LINE, Form

STATEMENT = {
    "_type": statement.STATEMENT_TYPE,
    "predicate": {"claims": [{"id": "model.digest", "file": "m"}], "signer": {"public_key": ""}, "version": 1},
    "predicateType": statement.PREDICATE_TYPE,
    "subject": [{"digest": {"sha256": "0" * 64}, "name": "m"}],
}
"""A report in outline; whole ones are in the hands of the audit's own tests."""


Written = Callable[[Any], bytes] | None


def check_decoder(
    read: Callable[[bytes], Any], write: Written, error: type[FederationError], data: bytes, choice: int
) -> str:
    """Feeds one message; a value that is written again must give the same bytes."""
    del choice
    try:
        value = read(data)
    except error as refused:
        lines = refused.lines()
    else:
        assert write is None or write(value) == data
        return "accepted"
    assert all(line.isprintable() for line in lines)
    return "refused"


def strategy_targets() -> list[Target]:
    """Returns the decoders of what server and sites say to each other outside of FSA1."""
    vector = np.arange(4, dtype=np.float32)
    task = RoundTask("a job", 2, 1, (1, 1), {"model": vector, "control": vector})
    secure = SecureTask(task, recorded().messages[0])
    reply = RoundReply(SiteId("va"), 2, 1, Contribution({"u": vector}, {"loss": 0.5}))
    samples: tuple[Hello | RoundTask | SecureTask | RoundReply, ...] = (Hello(SiteId("va"), 111), task, secure, reply)
    every = tuple(message.encode() for message in samples)
    found = []
    for message, data in zip(samples, every, strict=True):
        check = partial(check_decoder, type(message).decode, lambda value: value.encode(), RemoteProtocolError)
        found.append(Target(f"{type(message).__name__} decode", (data, *every), check))
    return found


def targets() -> list[Target]:
    """Returns all decoders."""
    messages = recorded().messages
    context = recorded().all_of.context.encode()
    payload = JSON.dumps(STATEMENT)
    signed = envelope.sign(payload, SigningKey(bytes(32)))

    def target(name: str, first: bytes, form: Form | None = None, **how: Any) -> Target:
        error = ConfigError if form else RemoteProtocolError
        check = partial(check_decoder, how["read"], how.get("write"), error)
        return Target(name, (first,) if form else (first, *messages), check, *([form] if form else []))

    return [
        target("message decode", messages[0], read=wire.decode, write=lambda message: message.encode()),
        target("context decode", context, read=RoundContext.decode, write=lambda read: read.encode()),
        target("encoding loads", messages[-1], read=encoding.loads, write=encoding.dumps),
        target("envelope decode", signed, LINE, read=envelope.decode),
        target("statement decode", payload, JSON, read=statement.decode),
        *strategy_targets(),
    ]
