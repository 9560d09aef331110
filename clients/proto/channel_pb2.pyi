from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Frame(_message.Message):
    __slots__ = ("sequence", "acknowledged", "open", "opened", "data", "closed", "tensors")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_FIELD_NUMBER: _ClassVar[int]
    OPEN_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    acknowledged: int
    open: Open
    opened: Opened
    data: Data
    closed: Closed
    tensors: bytes
    def __init__(self, sequence: _Optional[int] = ..., acknowledged: _Optional[int] = ..., open: _Optional[_Union[Open, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., data: _Optional[_Union[Data, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., tensors: _Optional[bytes] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("asked", "signature")
    ASKED_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    asked: bytes
    signature: bytes
    def __init__(self, asked: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Asked(_message.Message):
    __slots__ = ("version", "dialler", "listener", "charter", "kind", "session", "nonce", "purpose", "body", "limits", "resume", "received")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIALLER_FIELD_NUMBER: _ClassVar[int]
    LISTENER_FIELD_NUMBER: _ClassVar[int]
    CHARTER_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NONCE_FIELD_NUMBER: _ClassVar[int]
    PURPOSE_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    version: int
    dialler: str
    listener: str
    charter: bytes
    kind: str
    session: bytes
    nonce: bytes
    purpose: str
    body: bytes
    limits: Limits
    resume: bool
    received: int
    def __init__(self, version: _Optional[int] = ..., dialler: _Optional[str] = ..., listener: _Optional[str] = ..., charter: _Optional[bytes] = ..., kind: _Optional[str] = ..., session: _Optional[bytes] = ..., nonce: _Optional[bytes] = ..., purpose: _Optional[str] = ..., body: _Optional[bytes] = ..., limits: _Optional[_Union[Limits, _Mapping]] = ..., resume: bool = ..., received: _Optional[int] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("terms", "signature")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    terms: bytes
    signature: bytes
    def __init__(self, terms: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Terms(_message.Message):
    __slots__ = ("limits", "body", "received", "certificate")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_FIELD_NUMBER: _ClassVar[int]
    limits: Limits
    body: bytes
    received: int
    certificate: bytes
    def __init__(self, limits: _Optional[_Union[Limits, _Mapping]] = ..., body: _Optional[bytes] = ..., received: _Optional[int] = ..., certificate: _Optional[bytes] = ...) -> None: ...

class Data(_message.Message):
    __slots__ = ("kind", "step", "body")
    KIND_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    kind: str
    step: int
    body: bytes
    def __init__(self, kind: _Optional[str] = ..., step: _Optional[int] = ..., body: _Optional[bytes] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Limits(_message.Message):
    __slots__ = ("frame_bytes", "window", "steps", "idle_ms", "resume_ms")
    FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    IDLE_MS_FIELD_NUMBER: _ClassVar[int]
    RESUME_MS_FIELD_NUMBER: _ClassVar[int]
    frame_bytes: int
    window: int
    steps: int
    idle_ms: int
    resume_ms: int
    def __init__(self, frame_bytes: _Optional[int] = ..., window: _Optional[int] = ..., steps: _Optional[int] = ..., idle_ms: _Optional[int] = ..., resume_ms: _Optional[int] = ...) -> None: ...
