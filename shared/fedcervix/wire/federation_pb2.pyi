from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EnrollRequest(_message.Message):
    __slots__ = ("request_pem",)
    REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    request_pem: bytes
    def __init__(self, request_pem: _Optional[bytes] = ...) -> None: ...

class EnrollReply(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ...) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ("request_pem",)
    REQUEST_PEM_FIELD_NUMBER: _ClassVar[int]
    request_pem: bytes
    def __init__(self, request_pem: _Optional[bytes] = ...) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ("certificate_pem",)
    CERTIFICATE_PEM_FIELD_NUMBER: _ClassVar[int]
    certificate_pem: bytes
    def __init__(self, certificate_pem: _Optional[bytes] = ...) -> None: ...

class AttachRequest(_message.Message):
    __slots__ = ("wire_version", "software_version", "instance", "succeeds", "look", "wire_version_max", "numerics", "plan_format", "at", "ledger")
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_VERSION_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDS_FIELD_NUMBER: _ClassVar[int]
    LOOK_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FORMAT_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    wire_version: int
    software_version: str
    instance: str
    succeeds: _containers.RepeatedScalarFieldContainer[str]
    look: bool
    wire_version_max: int
    numerics: int
    plan_format: int
    at: float
    ledger: LedgerKept
    def __init__(self, wire_version: _Optional[int] = ..., software_version: _Optional[str] = ..., instance: _Optional[str] = ..., succeeds: _Optional[_Iterable[str]] = ..., look: _Optional[bool] = ..., wire_version_max: _Optional[int] = ..., numerics: _Optional[int] = ..., plan_format: _Optional[int] = ..., at: _Optional[float] = ..., ledger: _Optional[_Union[LedgerKept, _Mapping]] = ...) -> None: ...

class LedgerKept(_message.Message):
    __slots__ = ("run", "entries")
    RUN_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    run: str
    entries: int
    def __init__(self, run: _Optional[str] = ..., entries: _Optional[int] = ...) -> None: ...

class FromCoordinator(_message.Message):
    __slots__ = ("welcome", "task", "stand", "leave", "ledger", "openings", "boxes", "attempt", "summed")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    STAND_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    LEDGER_FIELD_NUMBER: _ClassVar[int]
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SUMMED_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    task: Task
    stand: Stand
    leave: Leave
    ledger: Ledger
    openings: Openings
    boxes: Boxes
    attempt: Attempt
    summed: Summed
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., stand: _Optional[_Union[Stand, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., ledger: _Optional[_Union[Ledger, _Mapping]] = ..., openings: _Optional[_Union[Openings, _Mapping]] = ..., boxes: _Optional[_Union[Boxes, _Mapping]] = ..., attempt: _Optional[_Union[Attempt, _Mapping]] = ..., summed: _Optional[_Union[Summed, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("federation", "run", "plan", "wire_version", "keys", "ledger_key", "at")
    FEDERATION_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    WIRE_VERSION_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    LEDGER_KEY_FIELD_NUMBER: _ClassVar[int]
    AT_FIELD_NUMBER: _ClassVar[int]
    federation: str
    run: str
    plan: str
    wire_version: int
    keys: _containers.RepeatedCompositeFieldContainer[SiteKey]
    ledger_key: bytes
    at: float
    def __init__(self, federation: _Optional[str] = ..., run: _Optional[str] = ..., plan: _Optional[str] = ..., wire_version: _Optional[int] = ..., keys: _Optional[_Iterable[_Union[SiteKey, _Mapping]]] = ..., ledger_key: _Optional[bytes] = ..., at: _Optional[float] = ...) -> None: ...

class SiteKey(_message.Message):
    __slots__ = ("site", "key")
    SITE_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    site: str
    key: bytes
    def __init__(self, site: _Optional[str] = ..., key: _Optional[bytes] = ...) -> None: ...

class Ledger(_message.Message):
    __slots__ = ("lines", "head", "signature", "countersigned")
    LINES_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    COUNTERSIGNED_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[LedgerLine]
    head: bytes
    signature: bytes
    countersigned: _containers.RepeatedCompositeFieldContainer[Countersignature]
    def __init__(self, lines: _Optional[_Iterable[_Union[LedgerLine, _Mapping]]] = ..., head: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., countersigned: _Optional[_Iterable[_Union[Countersignature, _Mapping]]] = ...) -> None: ...

class LedgerLine(_message.Message):
    __slots__ = ("text", "signature")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    text: bytes
    signature: bytes
    def __init__(self, text: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Countersignature(_message.Message):
    __slots__ = ("site", "head", "signature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    head: bytes
    signature: bytes
    def __init__(self, site: _Optional[str] = ..., head: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Openings(_message.Message):
    __slots__ = ("openings",)
    OPENINGS_FIELD_NUMBER: _ClassVar[int]
    openings: _containers.RepeatedCompositeFieldContainer[SiteOpening]
    def __init__(self, openings: _Optional[_Iterable[_Union[SiteOpening, _Mapping]]] = ...) -> None: ...

class SiteOpening(_message.Message):
    __slots__ = ("site", "opening")
    SITE_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    site: str
    opening: Opening
    def __init__(self, site: _Optional[str] = ..., opening: _Optional[_Union[Opening, _Mapping]] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("key", "images", "rho", "signature")
    KEY_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RHO_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    key: bytes
    images: int
    rho: str
    signature: bytes
    def __init__(self, key: _Optional[bytes] = ..., images: _Optional[int] = ..., rho: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Boxes(_message.Message):
    __slots__ = ("boxes",)
    BOXES_FIELD_NUMBER: _ClassVar[int]
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    def __init__(self, boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("site", "box")
    SITE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    site: str
    box: bytes
    def __init__(self, site: _Optional[str] = ..., box: _Optional[bytes] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("round", "earlier", "lines", "remaining")
    ROUND_FIELD_NUMBER: _ClassVar[int]
    EARLIER_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    round: int
    earlier: _containers.RepeatedCompositeFieldContainer[Closing]
    lines: _containers.RepeatedCompositeFieldContainer[SumLine]
    remaining: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, round: _Optional[int] = ..., earlier: _Optional[_Iterable[_Union[Closing, _Mapping]]] = ..., lines: _Optional[_Iterable[_Union[SumLine, _Mapping]]] = ..., remaining: _Optional[_Iterable[str]] = ...) -> None: ...

class Closing(_message.Message):
    __slots__ = ("remaining", "closes")
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    CLOSES_FIELD_NUMBER: _ClassVar[int]
    remaining: _containers.RepeatedScalarFieldContainer[str]
    closes: _containers.RepeatedCompositeFieldContainer[HolderSignature]
    def __init__(self, remaining: _Optional[_Iterable[str]] = ..., closes: _Optional[_Iterable[_Union[HolderSignature, _Mapping]]] = ...) -> None: ...

class HolderSignature(_message.Message):
    __slots__ = ("site", "signature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    signature: bytes
    def __init__(self, site: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class SumLine(_message.Message):
    __slots__ = ("site", "upload", "steps", "loss", "masked")
    SITE_FIELD_NUMBER: _ClassVar[int]
    UPLOAD_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    site: str
    upload: str
    steps: int
    loss: float
    masked: Masked
    def __init__(self, site: _Optional[str] = ..., upload: _Optional[str] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., masked: _Optional[_Union[Masked, _Mapping]] = ...) -> None: ...

class Masked(_message.Message):
    __slots__ = ("commit", "norm", "before", "signature")
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    NORM_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    commit: str
    norm: float
    before: str
    signature: bytes
    def __init__(self, commit: _Optional[str] = ..., norm: _Optional[float] = ..., before: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Summed(_message.Message):
    __slots__ = ("attempt", "releases", "base", "total", "model")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    attempt: Attempt
    releases: _containers.RepeatedCompositeFieldContainer[Release]
    base: str
    total: str
    model: str
    def __init__(self, attempt: _Optional[_Union[Attempt, _Mapping]] = ..., releases: _Optional[_Iterable[_Union[Release, _Mapping]]] = ..., base: _Optional[str] = ..., total: _Optional[str] = ..., model: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("site", "listed", "masks", "signature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    listed: str
    masks: str
    signature: bytes
    def __init__(self, site: _Optional[str] = ..., listed: _Optional[str] = ..., masks: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("run", "kind", "round", "base", "attempt", "readers")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Task.Kind]
        KIND_SEED: _ClassVar[Task.Kind]
        KIND_TRAIN: _ClassVar[Task.Kind]
        KIND_SCORE: _ClassVar[Task.Kind]
        KIND_ADOPT: _ClassVar[Task.Kind]
        KIND_RELEASE: _ClassVar[Task.Kind]
        KIND_CLOSE: _ClassVar[Task.Kind]
        KIND_REWRAP: _ClassVar[Task.Kind]
        KIND_BOX: _ClassVar[Task.Kind]
    KIND_UNSPECIFIED: Task.Kind
    KIND_SEED: Task.Kind
    KIND_TRAIN: Task.Kind
    KIND_SCORE: Task.Kind
    KIND_ADOPT: Task.Kind
    KIND_RELEASE: Task.Kind
    KIND_CLOSE: Task.Kind
    KIND_REWRAP: Task.Kind
    KIND_BOX: Task.Kind
    RUN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    run: str
    kind: Task.Kind
    round: int
    base: str
    attempt: int
    readers: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, run: _Optional[str] = ..., kind: _Optional[_Union[Task.Kind, str]] = ..., round: _Optional[int] = ..., base: _Optional[str] = ..., attempt: _Optional[int] = ..., readers: _Optional[_Iterable[str]] = ...) -> None: ...

class Stand(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("outcome", "reason", "record")
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    outcome: str
    reason: str
    record: str
    def __init__(self, outcome: _Optional[str] = ..., reason: _Optional[str] = ..., record: _Optional[str] = ...) -> None: ...

class FromSite(_message.Message):
    __slots__ = ("at", "ready", "refusal", "progress", "update", "score", "adopted", "failure", "here", "stopped", "unusable", "boxed", "released", "closed", "rewrapped", "record", "signature", "head", "countersignature")
    AT_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    ADOPTED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    HERE_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    BOXED_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    CLOSED_FIELD_NUMBER: _ClassVar[int]
    REWRAPPED_FIELD_NUMBER: _ClassVar[int]
    RECORD_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    COUNTERSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    at: float
    ready: Ready
    refusal: Refusal
    progress: Progress
    update: Update
    score: Score
    adopted: Adopted
    failure: Failure
    here: Here
    stopped: Stopped
    unusable: Unusable
    boxed: Boxed
    released: Released
    closed: Closed
    rewrapped: Rewrapped
    record: bytes
    signature: bytes
    head: bytes
    countersignature: bytes
    def __init__(self, at: _Optional[float] = ..., ready: _Optional[_Union[Ready, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., update: _Optional[_Union[Update, _Mapping]] = ..., score: _Optional[_Union[Score, _Mapping]] = ..., adopted: _Optional[_Union[Adopted, _Mapping]] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ..., here: _Optional[_Union[Here, _Mapping]] = ..., stopped: _Optional[_Union[Stopped, _Mapping]] = ..., unusable: _Optional[_Union[Unusable, _Mapping]] = ..., boxed: _Optional[_Union[Boxed, _Mapping]] = ..., released: _Optional[_Union[Released, _Mapping]] = ..., closed: _Optional[_Union[Closed, _Mapping]] = ..., rewrapped: _Optional[_Union[Rewrapped, _Mapping]] = ..., record: _Optional[bytes] = ..., signature: _Optional[bytes] = ..., head: _Optional[bytes] = ..., countersignature: _Optional[bytes] = ...) -> None: ...

class Here(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Stopped(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Ready(_message.Message):
    __slots__ = ("run", "plan_digest", "opening", "pace")
    RUN_FIELD_NUMBER: _ClassVar[int]
    PLAN_DIGEST_FIELD_NUMBER: _ClassVar[int]
    OPENING_FIELD_NUMBER: _ClassVar[int]
    PACE_FIELD_NUMBER: _ClassVar[int]
    run: str
    plan_digest: str
    opening: Opening
    pace: Pace
    def __init__(self, run: _Optional[str] = ..., plan_digest: _Optional[str] = ..., opening: _Optional[_Union[Opening, _Mapping]] = ..., pace: _Optional[_Union[Pace, _Mapping]] = ...) -> None: ...

class Pace(_message.Message):
    __slots__ = ("steps", "step_low_s", "step_high_s", "task_s", "score_low_s", "score_high_s", "decode_low_s", "decode_high_s", "down_low", "down_high", "up_low", "up_high", "model_bytes", "packed_bytes", "memory_bytes", "memory_free_bytes", "disk_bytes", "disk_free_bytes", "gpu", "disk_left_bytes", "vector_s", "mask_s", "sum_s")
    STEPS_FIELD_NUMBER: _ClassVar[int]
    STEP_LOW_S_FIELD_NUMBER: _ClassVar[int]
    STEP_HIGH_S_FIELD_NUMBER: _ClassVar[int]
    TASK_S_FIELD_NUMBER: _ClassVar[int]
    SCORE_LOW_S_FIELD_NUMBER: _ClassVar[int]
    SCORE_HIGH_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_LOW_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_HIGH_S_FIELD_NUMBER: _ClassVar[int]
    DOWN_LOW_FIELD_NUMBER: _ClassVar[int]
    DOWN_HIGH_FIELD_NUMBER: _ClassVar[int]
    UP_LOW_FIELD_NUMBER: _ClassVar[int]
    UP_HIGH_FIELD_NUMBER: _ClassVar[int]
    MODEL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PACKED_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_BYTES_FIELD_NUMBER: _ClassVar[int]
    MEMORY_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_BYTES_FIELD_NUMBER: _ClassVar[int]
    GPU_FIELD_NUMBER: _ClassVar[int]
    DISK_LEFT_BYTES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_S_FIELD_NUMBER: _ClassVar[int]
    MASK_S_FIELD_NUMBER: _ClassVar[int]
    SUM_S_FIELD_NUMBER: _ClassVar[int]
    steps: int
    step_low_s: float
    step_high_s: float
    task_s: float
    score_low_s: float
    score_high_s: float
    decode_low_s: float
    decode_high_s: float
    down_low: float
    down_high: float
    up_low: float
    up_high: float
    model_bytes: int
    packed_bytes: int
    memory_bytes: int
    memory_free_bytes: int
    disk_bytes: int
    disk_free_bytes: int
    gpu: bool
    disk_left_bytes: int
    vector_s: float
    mask_s: float
    sum_s: float
    def __init__(self, steps: _Optional[int] = ..., step_low_s: _Optional[float] = ..., step_high_s: _Optional[float] = ..., task_s: _Optional[float] = ..., score_low_s: _Optional[float] = ..., score_high_s: _Optional[float] = ..., decode_low_s: _Optional[float] = ..., decode_high_s: _Optional[float] = ..., down_low: _Optional[float] = ..., down_high: _Optional[float] = ..., up_low: _Optional[float] = ..., up_high: _Optional[float] = ..., model_bytes: _Optional[int] = ..., packed_bytes: _Optional[int] = ..., memory_bytes: _Optional[int] = ..., memory_free_bytes: _Optional[int] = ..., disk_bytes: _Optional[int] = ..., disk_free_bytes: _Optional[int] = ..., gpu: _Optional[bool] = ..., disk_left_bytes: _Optional[int] = ..., vector_s: _Optional[float] = ..., mask_s: _Optional[float] = ..., sum_s: _Optional[float] = ...) -> None: ...

class Boxed(_message.Message):
    __slots__ = ("task", "roster", "boxes")
    TASK_FIELD_NUMBER: _ClassVar[int]
    ROSTER_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    task: Task
    roster: str
    boxes: _containers.RepeatedCompositeFieldContainer[Box]
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., roster: _Optional[str] = ..., boxes: _Optional[_Iterable[_Union[Box, _Mapping]]] = ...) -> None: ...

class Released(_message.Message):
    __slots__ = ("task", "listed", "masks", "signature")
    TASK_FIELD_NUMBER: _ClassVar[int]
    LISTED_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    task: Task
    listed: str
    masks: str
    signature: bytes
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., listed: _Optional[str] = ..., masks: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Closed(_message.Message):
    __slots__ = ("task", "remaining", "signature")
    TASK_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    task: Task
    remaining: _containers.RepeatedScalarFieldContainer[str]
    signature: bytes
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., remaining: _Optional[_Iterable[str]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("run", "reason")
    RUN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    run: str
    reason: str
    def __init__(self, run: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("task", "stage", "done", "of", "unit", "loss", "images_per_s")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    OF_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    IMAGES_PER_S_FIELD_NUMBER: _ClassVar[int]
    task: Task
    stage: str
    done: int
    of: int
    unit: str
    loss: float
    images_per_s: float
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., stage: _Optional[str] = ..., done: _Optional[int] = ..., of: _Optional[int] = ..., unit: _Optional[str] = ..., loss: _Optional[float] = ..., images_per_s: _Optional[float] = ...) -> None: ...

class Update(_message.Message):
    __slots__ = ("task", "digest", "images", "steps", "loss", "seconds", "packed", "masked", "seal")
    TASK_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    PACKED_FIELD_NUMBER: _ClassVar[int]
    MASKED_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    task: Task
    digest: str
    images: int
    steps: int
    loss: float
    seconds: float
    packed: str
    masked: Masked
    seal: Seal
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., digest: _Optional[str] = ..., images: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., seconds: _Optional[float] = ..., packed: _Optional[str] = ..., masked: _Optional[_Union[Masked, _Mapping]] = ..., seal: _Optional[_Union[Seal, _Mapping]] = ...) -> None: ...

class Seal(_message.Message):
    __slots__ = ("site", "header", "file", "boxes", "signature")
    SITE_FIELD_NUMBER: _ClassVar[int]
    HEADER_FIELD_NUMBER: _ClassVar[int]
    FILE_FIELD_NUMBER: _ClassVar[int]
    BOXES_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    site: str
    header: bytes
    file: str
    boxes: _containers.RepeatedCompositeFieldContainer[KeyBox]
    signature: bytes
    def __init__(self, site: _Optional[str] = ..., header: _Optional[bytes] = ..., file: _Optional[str] = ..., boxes: _Optional[_Iterable[_Union[KeyBox, _Mapping]]] = ..., signature: _Optional[bytes] = ...) -> None: ...

class KeyBox(_message.Message):
    __slots__ = ("reader", "box")
    READER_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    reader: str
    box: bytes
    def __init__(self, reader: _Optional[str] = ..., box: _Optional[bytes] = ...) -> None: ...

class Rewrapped(_message.Message):
    __slots__ = ("task", "seal")
    TASK_FIELD_NUMBER: _ClassVar[int]
    SEAL_FIELD_NUMBER: _ClassVar[int]
    task: Task
    seal: Seal
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., seal: _Optional[_Union[Seal, _Mapping]] = ...) -> None: ...

class Score(_message.Message):
    __slots__ = ("task", "loss_sum", "count", "images", "gauges")
    class GaugesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    TASK_FIELD_NUMBER: _ClassVar[int]
    LOSS_SUM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    GAUGES_FIELD_NUMBER: _ClassVar[int]
    task: Task
    loss_sum: float
    count: int
    images: int
    gauges: _containers.ScalarMap[str, float]
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., loss_sum: _Optional[float] = ..., count: _Optional[int] = ..., images: _Optional[int] = ..., gauges: _Optional[_Mapping[str, float]] = ...) -> None: ...

class Unusable(_message.Message):
    __slots__ = ("task", "steps")
    TASK_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    task: Task
    steps: int
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ..., steps: _Optional[int] = ...) -> None: ...

class Adopted(_message.Message):
    __slots__ = ("task",)
    TASK_FIELD_NUMBER: _ClassVar[int]
    task: Task
    def __init__(self, task: _Optional[_Union[Task, _Mapping]] = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("stage", "hint", "incident", "kind", "goes_on")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    HINT_FIELD_NUMBER: _ClassVar[int]
    INCIDENT_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    GOES_ON_FIELD_NUMBER: _ClassVar[int]
    stage: str
    hint: str
    incident: str
    kind: str
    goes_on: bool
    def __init__(self, stage: _Optional[str] = ..., hint: _Optional[str] = ..., incident: _Optional[str] = ..., kind: _Optional[str] = ..., goes_on: _Optional[bool] = ...) -> None: ...

class ReportReply(_message.Message):
    __slots__ = ("answer", "reason")
    class Answer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ANSWER_UNSPECIFIED: _ClassVar[ReportReply.Answer]
        ANSWER_ACCEPTED: _ClassVar[ReportReply.Answer]
        ANSWER_DUPLICATE: _ClassVar[ReportReply.Answer]
        ANSWER_STALE: _ClassVar[ReportReply.Answer]
        ANSWER_REFUSED: _ClassVar[ReportReply.Answer]
    ANSWER_UNSPECIFIED: ReportReply.Answer
    ANSWER_ACCEPTED: ReportReply.Answer
    ANSWER_DUPLICATE: ReportReply.Answer
    ANSWER_STALE: ReportReply.Answer
    ANSWER_REFUSED: ReportReply.Answer
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    answer: ReportReply.Answer
    reason: str
    def __init__(self, answer: _Optional[_Union[ReportReply.Answer, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class BlobRequest(_message.Message):
    __slots__ = ("digest", "offset", "chunk_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    offset: int
    chunk_bytes: int
    def __init__(self, digest: _Optional[str] = ..., offset: _Optional[int] = ..., chunk_bytes: _Optional[int] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("digest", "size_bytes")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    digest: str
    size_bytes: int
    def __init__(self, digest: _Optional[str] = ..., size_bytes: _Optional[int] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ("offset", "chunk_bytes")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CHUNK_BYTES_FIELD_NUMBER: _ClassVar[int]
    offset: int
    chunk_bytes: int
    def __init__(self, offset: _Optional[int] = ..., chunk_bytes: _Optional[int] = ...) -> None: ...

class PackedRequest(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class PackedReply(_message.Message):
    __slots__ = ("digest", "base", "seals")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    BASE_FIELD_NUMBER: _ClassVar[int]
    SEALS_FIELD_NUMBER: _ClassVar[int]
    digest: str
    base: str
    seals: _containers.RepeatedCompositeFieldContainer[Seal]
    def __init__(self, digest: _Optional[str] = ..., base: _Optional[str] = ..., seals: _Optional[_Iterable[_Union[Seal, _Mapping]]] = ...) -> None: ...

class PushReply(_message.Message):
    __slots__ = ("size_bytes",)
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    size_bytes: int
    def __init__(self, size_bytes: _Optional[int] = ...) -> None: ...

class OverviewRequest(_message.Message):
    __slots__ = ("run", "known_rounds")
    RUN_FIELD_NUMBER: _ClassVar[int]
    KNOWN_ROUNDS_FIELD_NUMBER: _ClassVar[int]
    run: str
    known_rounds: int
    def __init__(self, run: _Optional[str] = ..., known_rounds: _Optional[int] = ...) -> None: ...

class OverviewReply(_message.Message):
    __slots__ = ("json", "more")
    JSON_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    json: str
    more: bool
    def __init__(self, json: _Optional[str] = ..., more: _Optional[bool] = ...) -> None: ...

class CommandRequest(_message.Message):
    __slots__ = ("stop", "abort", "revoked")
    STOP_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    REVOKED_FIELD_NUMBER: _ClassVar[int]
    stop: bool
    abort: str
    revoked: str
    def __init__(self, stop: _Optional[bool] = ..., abort: _Optional[str] = ..., revoked: _Optional[str] = ...) -> None: ...

class CommandReply(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...
