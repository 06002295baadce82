import datetime

from engine_client.v1 import recommendation_pb2 as _recommendation_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LoggedExposure(_message.Message):
    __slots__ = ("schema_version", "request_id", "user_id", "unit_id", "surface", "served", "experiments", "strategy", "bundle_version", "degraded_reasons", "item_ids", "scores", "propensities", "sources", "stages", "stage_ms", "device", "country", "interaction_count", "time", "error")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    UNIT_ID_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FIELD_NUMBER: _ClassVar[int]
    EXPERIMENTS_FIELD_NUMBER: _ClassVar[int]
    STRATEGY_FIELD_NUMBER: _ClassVar[int]
    BUNDLE_VERSION_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_REASONS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    PROPENSITIES_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    STAGE_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    COUNTRY_FIELD_NUMBER: _ClassVar[int]
    INTERACTION_COUNT_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    request_id: str
    user_id: str
    unit_id: str
    surface: str
    served: _timestamp_pb2.Timestamp
    experiments: _containers.RepeatedCompositeFieldContainer[_recommendation_pb2.ExperimentAssignment]
    strategy: _recommendation_pb2.Strategy
    bundle_version: str
    degraded_reasons: _containers.RepeatedScalarFieldContainer[_recommendation_pb2.DegradedReason]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    propensities: _containers.RepeatedScalarFieldContainer[float]
    sources: _containers.RepeatedScalarFieldContainer[_recommendation_pb2.ItemSource]
    stages: _containers.RepeatedScalarFieldContainer[str]
    stage_ms: _containers.RepeatedScalarFieldContainer[float]
    device: str
    country: str
    interaction_count: int
    time: _timestamp_pb2.Timestamp
    error: str
    def __init__(self, schema_version: _Optional[int] = ..., request_id: _Optional[str] = ..., user_id: _Optional[str] = ..., unit_id: _Optional[str] = ..., surface: _Optional[str] = ..., served: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., experiments: _Optional[_Iterable[_Union[_recommendation_pb2.ExperimentAssignment, _Mapping]]] = ..., strategy: _Optional[_Union[_recommendation_pb2.Strategy, str]] = ..., bundle_version: _Optional[str] = ..., degraded_reasons: _Optional[_Iterable[_Union[_recommendation_pb2.DegradedReason, str]]] = ..., item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., propensities: _Optional[_Iterable[float]] = ..., sources: _Optional[_Iterable[_Union[_recommendation_pb2.ItemSource, str]]] = ..., stages: _Optional[_Iterable[str]] = ..., stage_ms: _Optional[_Iterable[float]] = ..., device: _Optional[str] = ..., country: _Optional[str] = ..., interaction_count: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., error: _Optional[str] = ...) -> None: ...
