"""A site's side of Flower's Fleet API; the one file in ``clients`` that uses Flower's private names.

One shape of message is understood: a payload of bytes in one record, or cut into a few where it is large. A head
therefore announces a tree of known depth and width, only the payload is pulled, and no general parser meets what a peer
sent. Nothing is fetched that could be run, and nothing here ends the process.

See: flwr 1.41, ``superlink/routers/fleet`` (routes, node authentication) and ``superlink/servicer/fleet`` (answers).
"""

import base64
import copy
import hashlib
import re
import ssl
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto import fleet_pb2 as fleet
from flwr.proto import heartbeat_pb2 as heartbeats
from flwr.proto import message_pb2 as messages
from flwr.proto.node_pb2 import Node
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    no_object_id_recompute,
)
from google.protobuf.message import DecodeError

from clients.connection import Connection, FleetError
from privacy.errors import LocalProtocolError, RemoteProtocolError
from strategies.messages import RECORD, part_name

HEARTBEAT_SECONDS = 10.0
"""Flower's least; a node that has missed two is offline, so that a killed agent is locked out for 20 s at most."""

PART_BYTES = 4 * 2**20
"""A larger payload travels in several records: RECORD, RECORD.1, …, each with one bytes value of the same name."""

_SMALL = 65_536  # bytes of any reply that carries no object; about 4 MB once parsed, at worst
_OVERHEAD = 4_096  # bytes of a reply around the object in it
_CALL, _BEAT, _TRANSFER = 15.0, 5.0, 300.0  # seconds a call may take from its first byte to its last
_SUPERLINK = 1  # Flower's node id of the server
_OBJECT_ID = re.compile(r"[0-9a-f]{64}")
_BYTES_FIELD = 6  # of Flower's ConfigRecordValue

ReplyT = TypeVar("ReplyT")


@dataclass(frozen=True)
class Head:
    """A message as announced; nothing of its content has been asked for. Everything in it is the server's word.

    Attributes:
      message: Its metadata, without content; what a reply refers to.
      parts: Ids of the objects that hold the payload, in order: their SHA-256, in hex.
    """

    message: Message
    parts: tuple[str, ...]

    @property
    def run(self) -> int:
        """Flower's run id."""
        return self.message.metadata.run_id

    @property
    def kind(self) -> str:
        """The message type, by which it is allowed or refused."""
        return self.message.metadata.message_type


class Fleet:
    """A connection of one node to the server; threads may share it. Secret keys stay in it, replies are capped.

    Args:
      address: ``https://host:port``.
      context: From ``tls_context``.
      key: The node key, P-384. Secret.
      server_name: The DNS name that the server's certificate must carry, whatever host ``address`` names.
      cap: Largest payload accepted, and sent, in one message; bytes.

    Raises:
      ConfigError: ``address`` is not one.
      ValueError: A context that would accept less than it should.
    """

    def __init__(
        self, address: str, context: ssl.SSLContext, key: ec.EllipticCurvePrivateKey, *, server_name: str, cap: int
    ) -> None:
        self.node = 0
        self._connection = Connection(address, context, server_name=server_name)
        self._key, self._cap = key, cap
        self._public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def activate(self, node: int = 0) -> int:
        """Tells the server that this node is here.

        Args:
          node: The id that an earlier connection got; kept if the server still knows it. Flower refuses to activate
            a node that it believes to be online, for up to 20 s after a lost connection.

        Returns: The node id.

        Raises: FleetError, FleetRefusedError, RemoteProtocolError.
        """
        self.node = node
        if node:
            try:
                if self.heartbeat():
                    return node
            except FleetError:
                pass  # the id may be of another life of the server
        request = fleet.ActivateNodeRequest(public_key=self._public, heartbeat_interval=HEARTBEAT_SECONDS)
        self.node = self._call("activate-node", request, fleet.ActivateNodeResponse).node_id
        return self.node

    def heartbeat(self) -> bool:
        """Returns whether the server knows this node. Raises: FleetError, FleetRefusedError, RemoteProtocolError."""
        request = heartbeats.SendNodeHeartbeatRequest(node=self._me(), heartbeat_interval=HEARTBEAT_SECONDS)
        reply = self._call("send-node-heartbeat", request, heartbeats.SendNodeHeartbeatResponse, limit=_BEAT)
        return reply.success

    def poll(self) -> Head | None:
        """Asks for one message; Flower hands out each only once.

        Returns: Its head, or ``None`` where there is nothing to do.

        Raises:
          FleetError, FleetRefusedError: As every call.
          RemoteProtocolError: It is not a message to this node in the one shape that is understood.
        """
        reply = self._call("pull-messages", fleet.PullMessagesRequest(node=self._me()), fleet.PullMessagesResponse)
        if not reply.messages_list and not reply.message_object_trees:
            return None
        if len(reply.messages_list) != 1 or len(reply.message_object_trees) != 1:
            raise RemoteProtocolError("the server sent more than one message", phase="poll")
        proto, (root, *parts) = reply.messages_list[0], self._announced(reply.message_object_trees[0])
        if proto.content.ByteSize() or proto.HasField("error") or proto.metadata.message_id != root:
            raise RemoteProtocolError("the server sent a message that is not what it announces", phase="poll")
        metadata = proto.metadata
        addressed = metadata.dst_node_id == self.node and metadata.src_node_id == _SUPERLINK
        if not addressed or metadata.reply_to_message_id:
            raise RemoteProtocolError("the server sent a message that is not a question to this site", phase="poll")
        try:
            return Head(message_from_proto(proto), tuple(parts))
        except (ValueError, TypeError) as error:
            raise RemoteProtocolError("the server sent a message of no known type", phase="poll") from error

    def pull(self, head: Head) -> Message:
        """Pulls a message's payload, and tells the server that it may forget it.

        Returns: The message, with one record of one bytes value.

        Raises:
          FleetError, FleetRefusedError: As every call.
          RemoteProtocolError: The object is missing, too large, not the one announced, or not a record of bytes.
        """
        payload = bytearray()
        for place, part in enumerate(head.parts):
            request = messages.PullObjectRequest(node=self._me(), run_id=head.run, object_id=part)
            content = self._available(request, self._cap - len(payload) + _OVERHEAD)
            if hashlib.sha256(content).hexdigest() != part:
                raise RemoteProtocolError("the server sent another object than it announced", phase="pull")
            payload += _value(content, part_name(place))
        confirm = messages.ConfirmMessageReceivedRequest(
            node=self._me(), run_id=head.run, message_object_id=head.message.metadata.message_id
        )
        self._call("confirm-message-received", confirm, messages.ConfirmMessageReceivedResponse)
        message = copy.copy(head.message)
        message.content = RecordDict({RECORD: ConfigRecord({RECORD: bytes(payload)})})
        return message

    def push(self, reply: Message) -> None:
        """Pushes an answer. Doing it again after a ``FleetError`` is harmless: Flower stores an answer once.

        The reply says nothing of how long the work took: that would tell of the records.

        Args:
          reply: One record of one bytes value, or an error; made as a reply to what ``pull`` returned.

        Raises:
          LocalProtocolError: Any other shape: nothing else may leave a site.
          FleetError, FleetRefusedError: As every call.
          RemoteProtocolError: The server asks for an object that is not of this reply.
        """
        payload = payload_of(reply)
        if len(payload) > self._cap:
            raise LocalProtocolError(f"an answer of {len(payload)} bytes is too large")
        if len(payload) > PART_BYTES:
            starts = range(0, len(payload), PART_BYTES)
            parts = {part_name(place): payload[start : start + PART_BYTES] for place, start in enumerate(starts)}
            reply = copy.copy(reply)
            reply.content = RecordDict({name: ConfigRecord({name: part}) for name, part in parts.items()})
        with no_object_id_recompute():
            tree, objects = get_object_tree(reply), get_all_nested_objects(reply)
        proto = message_to_proto(remove_content_from_message(reply) if reply.has_content() else reply)
        proto.metadata.message_id = tree.object_id
        request = fleet.PushMessagesRequest(node=self._me(), messages_list=[proto], message_object_trees=[tree])
        announced = self._call("push-messages", request, fleet.PushMessagesResponse)
        if not objects.keys() >= set(announced.objects_to_push):
            raise RemoteProtocolError("the server asks for what is not part of the answer", phase="push")
        for object_id in announced.objects_to_push:
            one = messages.PushObjectRequest(
                node=self._me(),
                run_id=reply.metadata.run_id,
                object_id=object_id,
                object_content=objects[object_id].deflate(),
                session_id=announced.session_id,
            )
            if not self._call("push-object", one, messages.PushObjectResponse, limit=_TRANSFER).stored:
                raise FleetError("the server did not keep a part of the answer")

    def deactivate(self) -> None:
        """Tells the server that this node leaves. Raises: FleetError, FleetRefusedError, RemoteProtocolError."""
        request = fleet.DeactivateNodeRequest(node_id=self.node)
        self._call("deactivate-node", request, fleet.DeactivateNodeResponse, limit=_BEAT)

    def close(self) -> None:
        """Takes no further calls; those that other threads are in come to their end."""
        self._connection.close()

    def _me(self) -> Node:
        return Node(node_id=self.node)

    def _announced(self, tree: messages.ObjectTree) -> list[str]:
        """Returns the ids of a message and of its payload's parts, if that is all the tree holds."""
        (middle,) = tree.children if len(tree.children) == 1 else (messages.ObjectTree(),)
        leaves, most = middle.children, self._cap // PART_BYTES + 1
        if not 1 <= len(leaves) <= most or any(leaf.children for leaf in leaves):
            raise RemoteProtocolError("the server announces a message in other parts than a site takes", phase="poll")
        ids = [tree.object_id, *(leaf.object_id for leaf in leaves)]
        if not all(map(_OBJECT_ID.fullmatch, ids)) or len({middle.object_id, *ids}) != len(ids) + 1:
            raise RemoteProtocolError("the server announces parts without proper names", phase="poll")
        return ids

    def _available(self, request: messages.PullObjectRequest, cap: int) -> bytes:
        """Asks for an object until it is there: the server announces a message before its parts have come in."""
        end, pause = time.monotonic() + _TRANSFER, 0.02
        while True:
            reply = self._call("pull-object", request, messages.PullObjectResponse, cap=cap, limit=_TRANSFER)
            if not reply.object_found:
                raise RemoteProtocolError("the server no longer has what it announced", phase="pull")
            if reply.object_available:
                return reply.object_content
            if time.monotonic() + pause >= end:
                raise FleetError("what the server announced did not come in")
            time.sleep(pause)
            pause = min(pause * 2, 1.0)

    def _call(self, route: str, request: Any, kind: type[ReplyT], *, cap: int = _SMALL, limit: float = _CALL) -> ReplyT:
        body = request.SerializeToString(deterministic=True)
        data = self._connection.post(f"/v1/fleet/{route}", body, self._headers(), cap=cap, limit=limit)
        reply: Any = kind()
        try:
            reply.ParseFromString(data)
        except DecodeError as error:
            raise RemoteProtocolError("the server's reply cannot be read", phase=route) from error
        answer: ReplyT = reply
        return answer

    def _headers(self) -> dict[str, str]:
        """Signs the time, as Flower's node authentication wants it; the door compares the key with the charter's."""
        stamp = datetime.now(UTC).isoformat()
        signature = self._key.sign(stamp.encode(), ec.ECDSA(SHA256()))
        return {
            "content-type": "application/protobuf",
            "accept": "application/protobuf",
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(self._public).decode(),
            TIMESTAMP_HEADER: stamp,
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(signature).decode(),
        }


def payload_of(message: Message) -> bytes:
    """Returns the bytes that a message carries; none for an error, whose reason is a line of text.

    Raises: LocalProtocolError: It carries anything but one record of one bytes value.
    """
    if message.has_error() and not message.has_content():
        return b""
    record = message.content.get(RECORD) if set(message.content) == {RECORD} else None
    data = record.get(RECORD) if isinstance(record, ConfigRecord) and set(record) == {RECORD} else None
    if not isinstance(data, bytes):
        raise LocalProtocolError("a message of a site is one record of bytes, and this is not")
    return data


def _value(content: bytes, name: str) -> bytes:
    """Reads a deflated ``ConfigRecord({name: <bytes>})`` and nothing else; no length in it is believed unchecked.

    Flower's head names the type, the children and the body's length; the body is one item of a protobuf map.
    """
    head, found, body = content.partition(b"\x00")
    if not found or head != b"ConfigRecord  %d" % len(body):
        raise RemoteProtocolError("the server sent an object that is not a record", phase="pull")
    item = _only_field(memoryview(body), 1)
    named = bytes((1 << 3 | 2, len(name))) + name.encode()
    if bytes(item[: len(named)]) != named:
        raise RemoteProtocolError("the server sent a record of another name", phase="pull")
    return bytes(_only_field(_only_field(item[len(named) :], 2), _BYTES_FIELD))


def _only_field(data: memoryview, number: int) -> memoryview:
    """Returns the value of a length-delimited protobuf field that must be all there is in ``data``."""
    length, place = 0, 1
    for shift in range(0, 35, 7):
        byte = data[place] if place < len(data) else 0
        length |= (byte & 0x7F) << shift
        place += 1
        if byte < 0x80:
            break
    if not len(data) or data[0] != (number << 3 | 2) or len(data) - place != length:
        raise RemoteProtocolError("the server sent a record that is not one value of bytes", phase="pull")
    return data[place:]
