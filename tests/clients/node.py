"""A site's app at a node, as Flower runs it: messages in, replies out, a context that remembers."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.task_identity import TaskIdentity

from clients.app import Account, Member, build
from clients.memory import keep_invitation
from clients.work import Site, plans_of
from privacy.dp.noise import Entropy
from privacy.store.budgets import UNLIMITED, Asset
from privacy.store.ledger import Ledger
from strategies.contribution import Vector
from strategies.messages import RECORD, TRAIN, RoundReply, RoundTask
from tests.clients.example import START, VA, Keys, by_itself, plan, site

JOB = "digest of the settings"


def question(kind: str, data: Any = None) -> Message:
    """A message as it reaches a node; without ``data`` it carries nothing."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    content = RecordDict() if data is None else RecordDict({RECORD: ConfigRecord({RECORD: data})})
    message = Message(content, dst_node_id=7, message_type=kind)
    message.metadata.__dict__["_message_id"] = "question"
    return message


def training_task(round_number: int = 1, attempt_number: int = 1, **changes: Any) -> RoundTask:
    return replace(RoundTask(JOB, round_number, attempt_number, (0, 0), {"model": START}), **changes)


@dataclass
class Node:
    """An app at a node that remembers, as Flower keeps it."""

    member: Member
    context: Context
    app: ClientApp

    def ask(self, task: RoundTask) -> Message:
        return self.app(question(TRAIN, task.encode()), self.context)

    def contribution(self, task: RoundTask) -> Mapping[str, Vector]:
        return RoundReply.decode(body_of(self.ask(task))).contribution.arrays

    def memory(self) -> dict[str, Any]:
        state = self.context.state.items()
        return {name: dict(record) for name, record in state if name not in {"collegium-invitation", "collegium-left"}}


def node(member: Member, entropy: Entropy | None = None) -> Node:
    app = build(lambda _context, _invitation: member, entropy=entropy or Keys())
    return Node(member, invited(), app)


def invited(**config: Any) -> Context:
    """A node in whose run an invitation was let pass."""
    context = Context(1, 7, config, RecordDict(), {})
    keep_invitation(context.state, b"an invitation")
    return context


def let_pass(_invitation: bytes) -> None:
    """A gate that is open."""


def member_in(folder: Path, one: Site | None = None, ledger: type[Ledger] = Ledger) -> Member:
    """A member with a ledger of that kind in ``folder``; made if it is not there."""
    chosen, path = one or site(private=plan()), folder / "ledger.db"
    if not path.exists():
        budgets = {each.claim: UNLIMITED for each in plans_of(chosen)} or {"record": UNLIMITED}
        Ledger.create(path, simulation=True).declare(Asset(VA, budgets))
    return Member(chosen, Account(ledger(path), VA, "run"), JOB, by_itself(chosen), admit=let_pass)


def ledger_of(member: Member) -> Ledger:
    assert member.account is not None
    return member.account.ledger


def body_of(reply: Message) -> bytes:
    assert reply.has_content(), reply.error
    data = reply.content[RECORD][RECORD]
    assert isinstance(data, bytes)
    return data


def refusal(reply: Message) -> str:
    """The reason of an error reply, having checked that nothing else leaves with it."""
    assert reply.has_error()
    assert not reply.has_content()
    assert reply.metadata.reply_to_message_id == "question"
    assert reply.error.code >= 1000
    assert reply.error.reason is not None
    return reply.error.reason
