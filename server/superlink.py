"""The server side's one file with Flower's private names (1.41): its SuperLink app, unmodified, and a driver's session.

Flower's own commands open one port for everybody, fetch and run bundles, and end the process on the first 401. Here the
app is served by ``server/launcher.py`` on two listeners, the driver talks to it over a unix socket and runs the
installed code, and the bundle that Flower insists on is a stub. ``tests/server/test_superlink.py`` is the contract test
that fails loudly when a new Flower changes any of it.
"""

import fcntl
import hashlib
import importlib
import logging
import os
import threading
from base64 import b64decode
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI
from flwr.app import Error, Message, Metadata
from flwr.app.message import make_message
from flwr.cli.build import build_fab_from_files
from flwr.common.constant import (
    ISOLATION_MODE_PROCESS,
    NOOP_ACCOUNT_NAME,
    NOOP_FLWR_AID,
    SUPERLINK_NODE_ID,
    TRANSPORT_TYPE_GRPC_RERE,
    ErrorCode,
    Status,
    SubStatus,
)
from flwr.common.serde import run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.fab_pb2 import Fab
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    PullObjectRequest,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullAppMessagesRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.serverapp import Grid
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLWR_IN_MEMORY_DB_NAME, SYSTEM_MESSAGE_TYPE
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor
from flwr.supercore.object_store import NoObjectInStoreError
from flwr.supercore.protobuf.client import ProtobufClient
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.config_loader import SuperLinkLifespanConfig, load_control_authn_plugin
from flwr.superlink.grid import HttpGrid
from flwr.superlink.main import create_app
from google.protobuf.message import DecodeError

from privacy.errors import ConfigError, TransportError

KEY_HEADER = FLEET_HTTP_PUBLIC_KEY_HEADER.encode()
"""The header in which a node says which key it has; the charter lists its value per site."""

_STUB = b"""
[project]
name = "collegium-stub"
version = "0.1.0"
license = "Apache-2.0"
description = "Flower starts no run without a bundle; nothing in this one runs."
[tool.hatch.build.targets.wheel]
packages = ["."]
[tool.flwr.app]
publisher = "collegium"
[tool.flwr.app.components]
serverapp = "installed:server"
clientapp = "installed:client"
[tool.flwr.app.config]
"""
_TASK = "flwr-serverapp"
_HEARTBEAT = 10.0  # seconds; Flower gives a task up after 60
_CALL = 30.0  # seconds; one request over the socket

_URL = "http://collegium"  # names nothing: the socket is the address

_Client = TypeVar("_Client", bound=ProtobufClient)


def fleet_app() -> FastAPI:
    """Returns Flower's SuperLink as an app: state in memory, node keys required, no process of its own, no installs.

    Its lifespan is not to be run: it would only start what this configuration turns off.
    """
    # The package re-exports a function under the module's name.
    superlink = importlib.import_module("flwr.superlink.cli.flower_superlink")
    config = SuperLinkLifespanConfig(
        control_address="",
        health_server_address=None,
        host="",
        port=0,
        insecure=False,
        certificates=None,
        superexec_auth_secret=None,
        authn_plugin=load_control_authn_plugin(),
        event_log_plugin=None,
        fleet_event_log_plugin=None,
        enable_event_log=False,
        artifact_provider=None,
        enable_supernode_auth=True,
        fleet_api_type=TRANSPORT_TYPE_GRPC_RERE,
        fleet_api_address=None,
        simulation=False,
        ssl_ca_certfile=None,
        ssl_certfile=None,
        ssl_keyfile=None,
        database=FLWR_IN_MEMORY_DB_NAME,
        isolation=ISOLATION_MODE_PROCESS,
        runtime_dependency_install=False,
    )
    logging.getLogger("flwr").setLevel(logging.WARNING)  # a line per request is no log
    return create_app(config, superlink.SuperLinkLifespan)


def node_id(flower_key: str) -> int:
    """Returns the id of the node with this key, the same after every restart.

    Args:
      flower_key: As the charter lists it: base64 of PEM.
    """
    found = int.from_bytes(hashlib.sha256(b"node" + b64decode(flower_key)).digest()[:8], "big")
    return found if found > SUPERLINK_NODE_ID else found + 2  # 0 and 1 are Flower's own


def register(app: FastAPI, flower_key: str) -> int:
    """Makes a node known under ``node_id``; again for a known one does nothing. Returns the id."""
    state, key, wanted = app.state.linkstate_factory.state(), b64decode(flower_key), node_id(flower_key)
    memory: Any = importlib.import_module("flwr.server.superlink.linkstate.in_memory_linkstate")
    with state.lock:
        if key not in state.node_public_key_to_node_id:
            drawn = memory.generate_rand_int_from_bytes
            memory.generate_rand_int_from_bytes = lambda *_args, **_options: wanted  # Flower draws ids at random
            try:
                state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, key, 0)
            finally:
                memory.generate_rand_int_from_bytes = drawn
        if state.node_public_key_to_node_id.get(key) != wanted:
            raise ConfigError(f"Flower did not register node {wanted}")
    return wanted


def read(path: str, body: bytes) -> Any:
    """Reads a body as what Flower expects at the path, by its own table; None where it is no such thing."""
    request = PROTOBUF_REQUEST_TYPES["POST", path]()
    try:
        request.ParseFromString(body)
    except DecodeError:
        return None
    return request


def addressee(app: FastAPI, message_id: str) -> int | None:
    """Returns the node that a question of the driver's is for; None if there is none, or no longer."""
    message = app.state.linkstate_factory.state().message_ins_store.get(message_id)
    return None if message is None else int(message.metadata.dst_node_id)


def addressed(app: FastAPI, node: int) -> frozenset[str]:
    """Returns the ids of all objects in questions for the node that it may not have pulled yet."""
    state, found = app.state.linkstate_factory.state(), set[str]()
    with state.lock:
        questions = [key for key, one in state.message_ins_store.items() if one.metadata.dst_node_id == node]
    for message_id in questions:
        with suppress(NoObjectInStoreError):  # confirmed by the node and gone
            found.update(part.object_id for part in iterate_object_tree(state.object_store.get_object_tree(message_id)))
    return frozenset(found)


def forget(app: FastAPI, question: str) -> None:
    """Frees a question's objects; Flower keeps them where a node does not confirm what it pulled."""
    app.state.linkstate_factory.state().object_store.delete(question)


def tidy(app: FastAPI) -> None:
    """Frees what runs that are over left behind; Flower does so only when a node still asks about one."""
    state = app.state.linkstate_factory.state()
    for run_id in list(state.object_store.run_objects_mapping):
        if all(run.status.status == Status.FINISHED for run in state.get_run_info(run_ids=[run_id])):
            state.cleanup_run(run_id)


@contextmanager
def session(socket: Path) -> Iterator[tuple[Grid, int]]:
    """Starts a run at the launcher behind ``socket`` and yields a grid to its sites, and Flower's number of the run.

    The run ends with the block, as failed if the block raises. A reply that cannot be read arrives as an error of the
    site that sent it; one that is still being sent is not waited for.

    Raises:
      ConfigError: No launcher is there, or another driver is at work.
      TransportError: In the block: the launcher is gone, or was restarted and no longer knows the run.
    """
    with _only_driver(socket), ExitStack() as stack:
        run_id = _start(stack, socket)
        token = _claim(stack, socket, run_id)
        runtime = stack.enter_context(_runtime(socket, RuntimeTokenHttpInterceptor(token)))
        task = runtime.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = task.task_id, run_id, task.context.node_id
        grid = _SocketGrid(runtime, token)
        grid.set_run(run_from_proto(task.run))
        stopped = threading.Event()
        threading.Thread(target=_beat, args=(socket, token, stopped), daemon=True).start()
        outcome, details = SubStatus.FAILED, "the driver ended early"
        try:
            yield grid, run_id
            outcome, details = SubStatus.COMPLETED, ""
        finally:
            stopped.set()
            with suppress(TransportError):  # a launcher that is gone has forgotten the run anyway
                runtime.PushTaskOutput(PushTaskOutputRequest(sub_status=outcome, details=details))


@contextmanager
def _only_driver(socket: Path) -> Iterator[None]:
    """Holds the lock beside the socket: two drivers could take each other's task. It dies with the process."""
    try:
        lock = os.open(socket.with_name("driver.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"{socket.parent}: {error.strerror}", hint="Is `collegium server start` running?") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        hint = "Wait for its end; `collegium server resume` then goes on with this one."
        raise ConfigError("another run is being driven through this launcher", hint=hint) from None
    finally:
        os.close(lock)


def _start(stack: ExitStack, socket: Path) -> int:
    control = stack.enter_context(_over(socket, ControlHttpClient(_URL, interceptors=[])))
    fab = _stub()
    stub = Fab(hash_str=hashlib.sha256(fab).hexdigest(), content=fab)
    try:
        return int(control.StartRun(StartRunRequest(fab=stub)).run_id)
    except (httpx.HTTPError, ValueError) as error:
        raise ConfigError(
            f"no run could be started: {_line(error)}", hint="Is `collegium server start` running?"
        ) from None


@cache
def _stub() -> bytes:
    fab, _ = build_fab_from_files({"pyproject.toml": _STUB})
    return fab


def _claim(stack: ExitStack, socket: Path, run_id: int) -> str:
    """Returns the token of the run's task; fails tasks that a driver left behind before it took them."""
    runtime = stack.enter_context(_runtime(socket))
    while (found := runtime.AcquireTask(AcquireTaskRequest(supported_task_types=[_TASK]))).token:
        if found.task.run_id == run_id:
            return str(found.token)
        with _runtime(socket, RuntimeTokenHttpInterceptor(found.token)) as left:
            left.PushTaskOutput(PushTaskOutputRequest(sub_status=SubStatus.FAILED, details="its driver is gone"))
    raise TransportError("the launcher has no task for the run it started", retryable=False)


def _beat(socket: Path, token: str, stopped: threading.Event) -> None:
    """Keeps the task alive, on a connection of its own; what ends a run is for the driver's next call to find."""
    with _runtime(socket, RuntimeTokenHttpInterceptor(token)) as runtime:
        while not stopped.wait(_HEARTBEAT):
            with suppress(TransportError):
                runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())


class _Runtime(RuntimeHttpClient):
    """Flower's client without its retries, which wait for ever and end the process on 401."""

    def _unary_unary(self, **call: Any) -> Any:
        try:
            return super()._unary_unary(**call)
        except (httpx.HTTPError, ValueError) as error:
            raise TransportError(f"the run at the launcher is lost: {_line(error)}", retryable=False) from None

    def PushObject(self, request: PushObjectRequest) -> PushObjectResponse:  # noqa: N802 -- Flower's name
        """Pushes a part of a question, as good as pushed if nobody waits for it: a site confirms with the payload."""
        answer = super().PushObject(request)
        answer.stored = True
        return answer


def _runtime(socket: Path, *interceptors: RuntimeTokenHttpInterceptor) -> "_Runtime":
    version = RuntimeVersionHttpInterceptor(component_name=_TASK)
    return _over(socket, _Runtime(_URL, interceptors=[version, *interceptors]))


def _over(socket: Path, client: _Client) -> _Client:
    """Sends the client's requests through the socket."""
    client._client.close()  # noqa: SLF001 -- Flower offers no other way to set the transport
    client._client = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=_CALL)  # noqa: SLF001
    return client


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


@dataclass
class _Arriving:
    """A reply whose head is here and whose objects may still be on their way."""

    message_id: str
    missing: list[str]
    contents: dict[str, bytes] = field(default_factory=dict)


class _SocketGrid(HttpGrid):
    """Flower's grid, but a pull takes what is there: Flower's own waits minutes for the objects of a stalled reply."""

    def __init__(self, client: RuntimeHttpClient, token: str) -> None:
        super().__init__("collegium", insecure=True, token=token)
        self._client = client
        self._arriving: dict[str, _Arriving] = {}

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Returns replies to these messages that are complete; part of the interface."""
        wanted = dict.fromkeys(message_ids)
        asked = [message_id for message_id in wanted if message_id not in self._arriving]
        if asked:
            heads = self._runtime_client.PullMessages(PullAppMessagesRequest(message_ids=asked))
            for head, tree in zip(heads.messages_list, heads.message_object_trees, strict=True):
                objects = dict.fromkeys(part.object_id for part in iterate_object_tree(tree))
                arriving = _Arriving(head.metadata.message_id, list(objects))
                self._arriving[head.metadata.reply_to_message_id] = arriving
        taken = (self._take(message_id) for message_id in wanted if message_id in self._arriving)
        return [message for message in taken if message is not None]

    def _take(self, question: str) -> Message | None:
        arriving, run_id = self._arriving[question], self.run.run_id
        while arriving.missing:
            object_id = arriving.missing[-1]
            part = self._runtime_client.PullObject(
                PullObjectRequest(node=self.node, run_id=run_id, object_id=object_id)
            )
            if not part.object_found:
                del self._arriving[question]
                return self._unreadable(question, "the reply was not sent to its end")
            if not part.object_available:
                return None
            arriving.contents[arriving.missing.pop()] = part.object_content
        del self._arriving[question]
        self._confirm(arriving.message_id)
        try:
            message = inflate_object_from_contents(arriving.message_id, arriving.contents)
        except Exception:  # noqa: BLE001 -- a stranger's bytes must not end the run, whatever Flower's parser raises
            message = None
        if isinstance(message, Message) and message.has_error():
            self._confirm(question)  # perhaps its node never saw it, and then nobody else would
        if not isinstance(message, Message) or message.metadata.reply_to_message_id != question:
            return self._unreadable(question, "the reply cannot be read")
        message.metadata.__dict__["_message_id"] = arriving.message_id
        return message

    def _confirm(self, message_id: str) -> None:
        request = ConfirmMessageReceivedRequest(node=self.node, run_id=self.run.run_id, message_object_id=message_id)
        self._runtime_client.ConfirmMessageReceived(request)

    def _unreadable(self, question: str, reason: str) -> Message:
        node = self.node.node_id
        metadata = Metadata(
            run_id=self.run.run_id,
            message_id="",
            src_node_id=node,
            dst_node_id=node,
            message_type=SYSTEM_MESSAGE_TYPE,
            group_id="",
            ttl=0,
            reply_to_message_id=question,
            created_at=now().timestamp(),
        )
        return make_message(metadata=metadata, error=Error(code=ErrorCode.MESSAGE_UNAVAILABLE, reason=reason))
