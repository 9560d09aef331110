"""What both sides of ``simulations/bench/real.py`` run at the sites, and what they run at stock Flower's server.

The ClientApp echoes bytes, and trains as a plain Flower app does. On stock Flower the ServerApp is `flwr run` once and
takes its orders over a unix socket, a line of JSON each, so that both sides can take turns. As a program,
``python -m simulations.bench.real_app FOLDER``, this is a site's resident agent that answers with the same ClientApp.

An echo comes back reversed: no store that knows an object by its hash can spare itself the way back.
"""

import json
import logging
import os
import secrets
import socket as sockets
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp, strategy

from clients.connection import tls_context
from clients.fleet import Fleet
from clients.resident import Resident, stop_on_signals
from privacy.enrolment.certificates import Holder, Role
from privacy.errors import TransportError
from privacy.store.site_folder import SiteFolder
from strategies.messages import RECORD

ECHO = "query.echo"
MESSAGE_CAP = 2**26
"""Bytes of the largest message that a resident agent of the benchmark takes."""

_PATIENCE = 300.0  # seconds; for anything that stock Flower is asked

client = ClientApp()
server = ServerApp()


@client.query("echo")
def echo(message: Message, _context: Context) -> Message:
    """Sends the bytes back, reversed."""
    return Message(bytes_record(bytes_in(message)[::-1]), reply_to=message)


@client.train()
def train(message: Message, context: Context) -> Message:
    """Trains on the site's rows as a plain Flower app does: steps of SGD from the global model, in torch."""
    import torch  # noqa: PLC0415 -- stock Flower starts a process for every message, and an echo needs no torch

    settings, rows = message.content.config_records["config"], np.load(str(context.node_config["rows"]))
    x, y = torch.from_numpy(rows["x"]), torch.from_numpy(rows["y"])
    model = _model(x.shape[1], int(str(settings["hidden"])))
    model.load_state_dict(message.content.array_records["arrays"].to_torch_state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=float(str(settings["learning-rate"])))
    for _ in range(int(str(settings["local-steps"]))):
        drawn = torch.randperm(len(x))[: int(str(settings["batch"]))]
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(x[drawn])[:, 0], y[drawn]).backward()  # type: ignore[no-untyped-call] # torch
        optimizer.step()
    trained = RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})})
    return Message(trained, reply_to=message)


def _model(n_inputs: int, hidden: int) -> Any:
    from torch import nn  # noqa: PLC0415 -- see train

    return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def bytes_record(payload: bytes) -> RecordDict:
    """Returns the one shape of message that a resident agent takes."""
    return RecordDict({RECORD: ConfigRecord({RECORD: payload})})


def bytes_in(message: Message) -> bytes:
    """Returns the payload of a message of that shape; empty if it is an error."""
    value = message.content.config_records[RECORD][RECORD] if message.has_content() else b""
    return value if isinstance(value, bytes) else b""


@server.main()
def take_orders(grid: Grid, context: Context) -> None:
    """Carries out what the benchmark asks for until it hangs up."""
    with sockets.socket(sockets.AF_UNIX) as line:
        line.connect(str(context.run_config["orders"]))
        with line.makefile("rw", encoding="utf-8") as text:
            text.write(f"{os.getpid()}\n")
            text.flush()
            for order in text:
                text.write(json.dumps(carried_out(grid, json.loads(order))) + "\n")
                text.flush()


def carried_out(grid: Grid, order: Mapping[str, Any]) -> list[float]:
    """Returns what an order took, in seconds: one phase of echoes, each round of a training, or the wait for nodes.

    Raises: TransportError: An answer is missing or wrong.
    """
    match order:
        case {"nodes": int(count)}:
            return [waited_for(grid, count)]
        case {"echo": int(size)}:
            return [_echoed(grid, size)]
        case {"train": int(rounds)}:
            return _trained(grid, rounds, order)
    raise TransportError(f"no such order: {', '.join(order)}", retryable=False)


def waited_for(grid: Grid, count: int) -> float:
    """Waits until so many nodes are there. Raises: TransportError: They are not, after minutes."""
    began = time.monotonic()
    while len(list(grid.get_node_ids())) != count:
        if time.monotonic() - began > _PATIENCE:
            raise TransportError(f"{len(list(grid.get_node_ids()))} of {count} nodes are there", retryable=False)
        time.sleep(0.2)
    return time.monotonic() - began


def questions(nodes: Sequence[int], size: int) -> dict[int, bytes]:
    """Returns other random bytes for every node."""
    return {node: secrets.token_bytes(size) for node in nodes}


def check_echoes(asked: Mapping[Any, bytes], answered: Mapping[Any, bytes]) -> None:
    """Checks that everybody sent back what it was sent. Raises: TransportError: Somebody did not."""
    wrong = [str(node) for node, payload in asked.items() if answered.get(node) != payload[::-1]]
    if wrong:
        raise TransportError(f"no echo from {', '.join(wrong)}", retryable=False)


def _echoed(grid: Grid, size: int) -> float:
    asked = questions(sorted(grid.get_node_ids()), size)
    messages = [Message(bytes_record(payload), dst_node_id=node, message_type=ECHO) for node, payload in asked.items()]
    began = time.perf_counter()
    replies = grid.send_and_receive(messages, timeout=_PATIENCE)
    answered = {reply.metadata.src_node_id: bytes_in(reply) for reply in replies}
    seconds = time.perf_counter() - began
    check_echoes(asked, answered)
    return seconds


def _trained(grid: Grid, rounds: int, order: Mapping[str, Any]) -> list[float]:
    """Runs Flower's FedAvg without evaluation at the clients: the one phase a round that it cannot do without."""
    nodes, marks = len(list(grid.get_node_ids())), list[float]()
    model = _model(order["inputs"], order["hidden"])

    def mark(_round: int, _arrays: ArrayRecord) -> None:
        marks.append(time.perf_counter())

    result = strategy.FedAvg(
        fraction_evaluate=0.0, min_train_nodes=nodes, min_available_nodes=nodes, min_evaluate_nodes=0
    ).start(
        grid,
        ArrayRecord(model.state_dict()),
        num_rounds=rounds,
        timeout=_PATIENCE,
        train_config=ConfigRecord({"hidden": order["hidden"], **order["training"]}),
        evaluate_fn=mark,
    )
    if len(result.train_metrics_clientapp) != rounds:
        raise TransportError("a round of stock Flower came to nothing", retryable=False)
    return [end - begin for begin, end in pairwise(marks)]


class Orders:
    """The benchmark's end of the ServerApp's line.

    Attributes:
      process: The ServerApp's id; nothing but itself ends it.
    """

    def __init__(self, connection: sockets.socket) -> None:
        connection.settimeout(None)
        self._text = connection.makefile("rw", encoding="utf-8")
        self.process = int(self._text.readline())

    def hang_up(self) -> None:
        """Closes the line: the ServerApp has nothing more to do."""
        self._text.close()

    def give(self, **order: Any) -> list[float]:
        """Has one order carried out. Raises: TransportError: The ServerApp ended instead."""
        self._text.write(json.dumps(order) + "\n")
        self._text.flush()
        answer = self._text.readline()
        if not answer:
            raise TransportError(f"stock Flower did not carry out {', '.join(order)}", retryable=False)
        return [float(seconds) for seconds in json.loads(answer)]


@contextmanager
def listening(path: Path) -> Iterator[sockets.socket]:
    """Listens for the ServerApp at ``path``."""
    with sockets.socket(sockets.AF_UNIX) as line:
        line.bind(str(path))
        line.listen(1)
        line.settimeout(0.5)
        yield line


def main(path: Path) -> None:
    """Runs the agent of the site in the folder ``path`` until it is told to stop."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    folder = SiteFolder(path)
    Resident(
        open_fleet=lambda: _fleet(folder),
        answer=client,
        allowed=frozenset({ECHO}),
        paused=lambda: folder.paused,
        report=lambda line: print(line, flush=True),  # noqa: T201 -- its log
        sent=lambda *_payload: None,
    ).run(stop_on_signals())


def _fleet(folder: SiteFolder) -> Fleet:
    now = datetime.now(UTC)
    tls, charter = folder.tls(now), folder.charter
    context = tls_context(
        root=tls.root,
        certificate=tls.certificate,
        key=tls.key,
        server=Holder(charter.federation, charter.server.id, charter.server.dns, Role.SERVER),
        now=lambda: now,
    )
    name = charter.server.dns
    return Fleet(folder.settings.server, context, folder.flower, server_name=name, cap=MESSAGE_CAP)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
