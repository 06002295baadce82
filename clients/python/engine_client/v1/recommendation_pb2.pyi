import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Priority(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PRIORITY_UNSPECIFIED: _ClassVar[Priority]
    PRIORITY_CRITICAL: _ClassVar[Priority]
    PRIORITY_DEFAULT: _ClassVar[Priority]
    PRIORITY_SHEDDABLE: _ClassVar[Priority]

class Strategy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STRATEGY_UNSPECIFIED: _ClassVar[Strategy]
    STRATEGY_PERSONALIZED: _ClassVar[Strategy]
    STRATEGY_DEMOGRAPHIC: _ClassVar[Strategy]
    STRATEGY_POPULARITY: _ClassVar[Strategy]

class ItemSource(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ITEM_SOURCE_UNSPECIFIED: _ClassVar[ItemSource]
    ITEM_SOURCE_RETRIEVAL: _ClassVar[ItemSource]
    ITEM_SOURCE_SEGMENT_POPULARITY: _ClassVar[ItemSource]
    ITEM_SOURCE_SURFACE_POPULARITY: _ClassVar[ItemSource]
    ITEM_SOURCE_GLOBAL_POPULARITY: _ClassVar[ItemSource]
    ITEM_SOURCE_BACKFILL: _ClassVar[ItemSource]
    ITEM_SOURCE_SESSION: _ClassVar[ItemSource]
    ITEM_SOURCE_EXPLORATION: _ClassVar[ItemSource]
    ITEM_SOURCE_PINNED: _ClassVar[ItemSource]
    ITEM_SOURCE_LET_BACK_IN: _ClassVar[ItemSource]

class DegradedReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DEGRADED_REASON_UNSPECIFIED: _ClassVar[DegradedReason]
    DEGRADED_REASON_FEATURES_STALE: _ClassVar[DegradedReason]
    DEGRADED_REASON_FEATURES_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_RETRIEVAL_FAILED: _ClassVar[DegradedReason]
    DEGRADED_REASON_RETRIEVAL_SKIPPED: _ClassVar[DegradedReason]
    DEGRADED_REASON_RANKING_FAILED: _ClassVar[DegradedReason]
    DEGRADED_REASON_RANKING_SKIPPED: _ClassVar[DegradedReason]
    DEGRADED_REASON_DIVERSITY_FAILED: _ClassVar[DegradedReason]
    DEGRADED_REASON_DIVERSITY_SKIPPED: _ClassVar[DegradedReason]
    DEGRADED_REASON_VARIANT_BUNDLE_UNAVAILABLE: _ClassVar[DegradedReason]
    DEGRADED_REASON_BUDGET_EXHAUSTED: _ClassVar[DegradedReason]
    DEGRADED_REASON_EFFORT_REDUCED: _ClassVar[DegradedReason]
PRIORITY_UNSPECIFIED: Priority
PRIORITY_CRITICAL: Priority
PRIORITY_DEFAULT: Priority
PRIORITY_SHEDDABLE: Priority
STRATEGY_UNSPECIFIED: Strategy
STRATEGY_PERSONALIZED: Strategy
STRATEGY_DEMOGRAPHIC: Strategy
STRATEGY_POPULARITY: Strategy
ITEM_SOURCE_UNSPECIFIED: ItemSource
ITEM_SOURCE_RETRIEVAL: ItemSource
ITEM_SOURCE_SEGMENT_POPULARITY: ItemSource
ITEM_SOURCE_SURFACE_POPULARITY: ItemSource
ITEM_SOURCE_GLOBAL_POPULARITY: ItemSource
ITEM_SOURCE_BACKFILL: ItemSource
ITEM_SOURCE_SESSION: ItemSource
ITEM_SOURCE_EXPLORATION: ItemSource
ITEM_SOURCE_PINNED: ItemSource
ITEM_SOURCE_LET_BACK_IN: ItemSource
DEGRADED_REASON_UNSPECIFIED: DegradedReason
DEGRADED_REASON_FEATURES_STALE: DegradedReason
DEGRADED_REASON_FEATURES_UNAVAILABLE: DegradedReason
DEGRADED_REASON_RETRIEVAL_FAILED: DegradedReason
DEGRADED_REASON_RETRIEVAL_SKIPPED: DegradedReason
DEGRADED_REASON_RANKING_FAILED: DegradedReason
DEGRADED_REASON_RANKING_SKIPPED: DegradedReason
DEGRADED_REASON_DIVERSITY_FAILED: DegradedReason
DEGRADED_REASON_DIVERSITY_SKIPPED: DegradedReason
DEGRADED_REASON_VARIANT_BUNDLE_UNAVAILABLE: DegradedReason
DEGRADED_REASON_BUDGET_EXHAUSTED: DegradedReason
DEGRADED_REASON_EFFORT_REDUCED: DegradedReason

class RecommendRequest(_message.Message):
    __slots__ = ("user_id", "surface", "item_count", "context", "demographics", "exclude_item_ids", "diversity_weight", "request_id", "debug", "session_id", "experiment_overrides", "priority")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    DEMOGRAPHICS_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENT_OVERRIDES_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    surface: str
    item_count: int
    context: Context
    demographics: Demographics
    exclude_item_ids: _containers.RepeatedScalarFieldContainer[str]
    diversity_weight: float
    request_id: str
    debug: bool
    session_id: str
    experiment_overrides: _containers.RepeatedCompositeFieldContainer[ExperimentOverride]
    priority: Priority
    def __init__(self, user_id: _Optional[str] = ..., surface: _Optional[str] = ..., item_count: _Optional[int] = ..., context: _Optional[_Union[Context, _Mapping]] = ..., demographics: _Optional[_Union[Demographics, _Mapping]] = ..., exclude_item_ids: _Optional[_Iterable[str]] = ..., diversity_weight: _Optional[float] = ..., request_id: _Optional[str] = ..., debug: _Optional[bool] = ..., session_id: _Optional[str] = ..., experiment_overrides: _Optional[_Iterable[_Union[ExperimentOverride, _Mapping]]] = ..., priority: _Optional[_Union[Priority, str]] = ...) -> None: ...

class ExperimentOverride(_message.Message):
    __slots__ = ("experiment", "variant")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    variant: str
    def __init__(self, experiment: _Optional[str] = ..., variant: _Optional[str] = ...) -> None: ...

class Context(_message.Message):
    __slots__ = ("time", "device", "country")
    TIME_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    device: str
    country: str
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., device: _Optional[str] = ..., country: _Optional[str] = ...) -> None: ...

class Demographics(_message.Message):
    __slots__ = ("age_group", "location", "signup_source")
    AGE_GROUP_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    SIGNUP_SOURCE_FIELD_NUMBER: _ClassVar[int]
    age_group: str
    location: str
    signup_source: str
    def __init__(self, age_group: _Optional[str] = ..., location: _Optional[str] = ..., signup_source: _Optional[str] = ...) -> None: ...

class RecommendResponse(_message.Message):
    __slots__ = ("items", "strategy", "bundle_version", "degraded_reasons", "request_id", "debug", "experiments")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    DEBUG_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[RecommendedItem]
    strategy: Strategy
    bundle_version: str
    degraded_reasons: _containers.RepeatedScalarFieldContainer[DegradedReason]
    request_id: str
    debug: DebugInfo
    experiments: _containers.RepeatedCompositeFieldContainer[ExperimentAssignment]
    def __init__(self, items: _Optional[_Iterable[_Union[RecommendedItem, _Mapping]]] = ..., strategy: _Optional[_Union[Strategy, str]] = ..., bundle_version: _Optional[str] = ..., degraded_reasons: _Optional[_Iterable[_Union[DegradedReason, str]]] = ..., request_id: _Optional[str] = ..., debug: _Optional[_Union[DebugInfo, _Mapping]] = ..., experiments: _Optional[_Iterable[_Union[ExperimentAssignment, _Mapping]]] = ...) -> None: ...

class ExperimentAssignment(_message.Message):
    __slots__ = ("experiment", "variant", "overridden")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    OVERRIDDEN_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    variant: str
    overridden: bool
    def __init__(self, experiment: _Optional[str] = ..., variant: _Optional[str] = ..., overridden: _Optional[bool] = ...) -> None: ...

class RecommendedItem(_message.Message):
    __slots__ = ("item_id", "score", "position", "source", "propensity", "explanation", "let_back_in")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    LET_BACK_IN_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    score: float
    position: int
    source: ItemSource
    propensity: float
    explanation: ItemExplanation
    let_back_in: str
    def __init__(self, item_id: _Optional[str] = ..., score: _Optional[float] = ..., position: _Optional[int] = ..., source: _Optional[_Union[ItemSource, str]] = ..., propensity: _Optional[float] = ..., explanation: _Optional[_Union[ItemExplanation, _Mapping]] = ..., let_back_in: _Optional[str] = ...) -> None: ...

class ItemExplanation(_message.Message):
    __slots__ = ("retrieval_score", "rank_score", "rule_factor", "rules", "diversity_penalty", "relaxed", "seen_factor")
    RETRIEVAL_SCORE_FIELD_NUMBER: _ClassVar[int]
    RANK_SCORE_FIELD_NUMBER: _ClassVar[int]
    RULE_FACTOR_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    RELAXED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FACTOR_FIELD_NUMBER: _ClassVar[int]
    retrieval_score: float
    rank_score: float
    rule_factor: float
    rules: _containers.RepeatedScalarFieldContainer[str]
    diversity_penalty: float
    relaxed: _containers.RepeatedScalarFieldContainer[str]
    seen_factor: float
    def __init__(self, retrieval_score: _Optional[float] = ..., rank_score: _Optional[float] = ..., rule_factor: _Optional[float] = ..., rules: _Optional[_Iterable[str]] = ..., diversity_penalty: _Optional[float] = ..., relaxed: _Optional[_Iterable[str]] = ..., seen_factor: _Optional[float] = ...) -> None: ...

class DebugInfo(_message.Message):
    __slots__ = ("stages", "candidate_count", "known_user", "interaction_count", "removed", "seen")
    STAGES_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    KNOWN_USER_FIELD_NUMBER: _ClassVar[int]
    INTERACTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    REMOVED_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[StageTiming]
    candidate_count: int
    known_user: bool
    interaction_count: int
    removed: _containers.RepeatedCompositeFieldContainer[RemovalCount]
    seen: _containers.RepeatedCompositeFieldContainer[SeenCount]
    def __init__(self, stages: _Optional[_Iterable[_Union[StageTiming, _Mapping]]] = ..., candidate_count: _Optional[int] = ..., known_user: _Optional[bool] = ..., interaction_count: _Optional[int] = ..., removed: _Optional[_Iterable[_Union[RemovalCount, _Mapping]]] = ..., seen: _Optional[_Iterable[_Union[SeenCount, _Mapping]]] = ...) -> None: ...

class SeenCount(_message.Message):
    __slots__ = ("action", "event_type", "count")
    ACTION_FIELD_NUMBER: _ClassVar[int]
    EVENT_TYPE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    action: str
    event_type: str
    count: int
    def __init__(self, action: _Optional[str] = ..., event_type: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class RemovalCount(_message.Message):
    __slots__ = ("reason", "count")
    REASON_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    reason: str
    count: int
    def __init__(self, reason: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class StageTiming(_message.Message):
    __slots__ = ("stage", "duration_ms")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    DURATION_MS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    duration_ms: float
    def __init__(self, stage: _Optional[str] = ..., duration_ms: _Optional[float] = ...) -> None: ...
