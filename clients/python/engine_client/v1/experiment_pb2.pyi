import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetReportRequest(_message.Message):
    __slots__ = ("experiment", "surface", "served_from", "served_to", "control", "shares")
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    SERVED_FROM_FIELD_NUMBER: _ClassVar[int]
    SERVED_TO_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    surface: str
    served_from: _timestamp_pb2.Timestamp
    served_to: _timestamp_pb2.Timestamp
    control: str
    shares: _containers.ScalarMap[str, float]
    def __init__(self, experiment: _Optional[str] = ..., surface: _Optional[str] = ..., served_from: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., served_to: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., control: _Optional[str] = ..., shares: _Optional[_Mapping[str, float]] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("report",)
    REPORT_FIELD_NUMBER: _ClassVar[int]
    report: ExperimentReport
    def __init__(self, report: _Optional[_Union[ExperimentReport, _Mapping]] = ...) -> None: ...

class Bounds(_message.Message):
    __slots__ = ("value", "low", "high")
    VALUE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    value: float
    low: float
    high: float
    def __init__(self, value: _Optional[float] = ..., low: _Optional[float] = ..., high: _Optional[float] = ...) -> None: ...

class ExperimentReport(_message.Message):
    __slots__ = ("experiment", "control", "variants", "surfaces", "first_ms", "last_ms", "rules", "shares", "excluded", "verdict", "splits", "comparisons", "cut_surface", "cuts", "days", "guardrails", "notes")
    class SharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    VARIANTS_FIELD_NUMBER: _ClassVar[int]
    SURFACES_FIELD_NUMBER: _ClassVar[int]
    FIRST_MS_FIELD_NUMBER: _ClassVar[int]
    LAST_MS_FIELD_NUMBER: _ClassVar[int]
    RULES_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SPLITS_FIELD_NUMBER: _ClassVar[int]
    COMPARISONS_FIELD_NUMBER: _ClassVar[int]
    CUT_SURFACE_FIELD_NUMBER: _ClassVar[int]
    CUTS_FIELD_NUMBER: _ClassVar[int]
    DAYS_FIELD_NUMBER: _ClassVar[int]
    GUARDRAILS_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    control: str
    variants: _containers.RepeatedScalarFieldContainer[str]
    surfaces: _containers.RepeatedScalarFieldContainer[str]
    first_ms: int
    last_ms: int
    rules: ReportRules
    shares: _containers.ScalarMap[str, float]
    excluded: ExcludedUnits
    verdict: ReportVerdict
    splits: _containers.RepeatedCompositeFieldContainer[VariantSplit]
    comparisons: _containers.RepeatedCompositeFieldContainer[MetricComparison]
    cut_surface: str
    cuts: _containers.RepeatedCompositeFieldContainer[MetricCut]
    days: _containers.RepeatedCompositeFieldContainer[LiftByDay]
    guardrails: _containers.RepeatedCompositeFieldContainer[VariantGuardrails]
    notes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, experiment: _Optional[str] = ..., control: _Optional[str] = ..., variants: _Optional[_Iterable[str]] = ..., surfaces: _Optional[_Iterable[str]] = ..., first_ms: _Optional[int] = ..., last_ms: _Optional[int] = ..., rules: _Optional[_Union[ReportRules, _Mapping]] = ..., shares: _Optional[_Mapping[str, float]] = ..., excluded: _Optional[_Union[ExcludedUnits, _Mapping]] = ..., verdict: _Optional[_Union[ReportVerdict, _Mapping]] = ..., splits: _Optional[_Iterable[_Union[VariantSplit, _Mapping]]] = ..., comparisons: _Optional[_Iterable[_Union[MetricComparison, _Mapping]]] = ..., cut_surface: _Optional[str] = ..., cuts: _Optional[_Iterable[_Union[MetricCut, _Mapping]]] = ..., days: _Optional[_Iterable[_Union[LiftByDay, _Mapping]]] = ..., guardrails: _Optional[_Iterable[_Union[VariantGuardrails, _Mapping]]] = ..., notes: _Optional[_Iterable[str]] = ...) -> None: ...

class ReportRules(_message.Message):
    __slots__ = ("window_ms", "session_gap_ms", "before_days", "bot_hourly_requests", "new_below", "alpha", "correction", "lift_scale", "clock")
    WINDOW_MS_FIELD_NUMBER: _ClassVar[int]
    SESSION_GAP_MS_FIELD_NUMBER: _ClassVar[int]
    BEFORE_DAYS_FIELD_NUMBER: _ClassVar[int]
    BOT_HOURLY_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEW_BELOW_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    CORRECTION_FIELD_NUMBER: _ClassVar[int]
    LIFT_SCALE_FIELD_NUMBER: _ClassVar[int]
    CLOCK_FIELD_NUMBER: _ClassVar[int]
    window_ms: int
    session_gap_ms: int
    before_days: int
    bot_hourly_requests: int
    new_below: int
    alpha: float
    correction: str
    lift_scale: float
    clock: str
    def __init__(self, window_ms: _Optional[int] = ..., session_gap_ms: _Optional[int] = ..., before_days: _Optional[int] = ..., bot_hourly_requests: _Optional[int] = ..., new_below: _Optional[int] = ..., alpha: _Optional[float] = ..., correction: _Optional[str] = ..., lift_scale: _Optional[float] = ..., clock: _Optional[str] = ...) -> None: ...

class ExcludedUnits(_message.Message):
    __slots__ = ("testers", "crossovers", "bots", "repeats")
    TESTERS_FIELD_NUMBER: _ClassVar[int]
    CROSSOVERS_FIELD_NUMBER: _ClassVar[int]
    BOTS_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    testers: int
    crossovers: int
    bots: int
    repeats: int
    def __init__(self, testers: _Optional[int] = ..., crossovers: _Optional[int] = ..., bots: _Optional[int] = ..., repeats: _Optional[int] = ...) -> None: ...

class ReportVerdict(_message.Message):
    __slots__ = ("readable", "headline", "sentences")
    READABLE_FIELD_NUMBER: _ClassVar[int]
    HEADLINE_FIELD_NUMBER: _ClassVar[int]
    SENTENCES_FIELD_NUMBER: _ClassVar[int]
    readable: bool
    headline: str
    sentences: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, readable: _Optional[bool] = ..., headline: _Optional[str] = ..., sentences: _Optional[_Iterable[str]] = ...) -> None: ...

class VariantSplit(_message.Message):
    __slots__ = ("surface", "counts", "expected", "p_value", "mismatch")
    class CountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class ExpectedEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    MISMATCH_FIELD_NUMBER: _ClassVar[int]
    surface: str
    counts: _containers.ScalarMap[str, int]
    expected: _containers.ScalarMap[str, float]
    p_value: float
    mismatch: bool
    def __init__(self, surface: _Optional[str] = ..., counts: _Optional[_Mapping[str, int]] = ..., expected: _Optional[_Mapping[str, float]] = ..., p_value: _Optional[float] = ..., mismatch: _Optional[bool] = ...) -> None: ...

class MetricComparison(_message.Message):
    __slots__ = ("surface", "variant", "metric", "control_units", "treatment_units", "control_value", "treatment_value", "lift", "difference", "anytime", "unadjusted", "bootstrap", "p_value", "anytime_p_value", "variance_kept", "detectable", "adjusted_p_value", "outcome", "sentence")
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CONTROL_UNITS_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_UNITS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_VALUE_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIFT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_FIELD_NUMBER: _ClassVar[int]
    UNADJUSTED_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_KEPT_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    surface: str
    variant: str
    metric: str
    control_units: int
    treatment_units: int
    control_value: float
    treatment_value: float
    lift: Bounds
    difference: Bounds
    anytime: Bounds
    unadjusted: Bounds
    bootstrap: Bounds
    p_value: float
    anytime_p_value: float
    variance_kept: float
    detectable: float
    adjusted_p_value: float
    outcome: str
    sentence: str
    def __init__(self, surface: _Optional[str] = ..., variant: _Optional[str] = ..., metric: _Optional[str] = ..., control_units: _Optional[int] = ..., treatment_units: _Optional[int] = ..., control_value: _Optional[float] = ..., treatment_value: _Optional[float] = ..., lift: _Optional[_Union[Bounds, _Mapping]] = ..., difference: _Optional[_Union[Bounds, _Mapping]] = ..., anytime: _Optional[_Union[Bounds, _Mapping]] = ..., unadjusted: _Optional[_Union[Bounds, _Mapping]] = ..., bootstrap: _Optional[_Union[Bounds, _Mapping]] = ..., p_value: _Optional[float] = ..., anytime_p_value: _Optional[float] = ..., variance_kept: _Optional[float] = ..., detectable: _Optional[float] = ..., adjusted_p_value: _Optional[float] = ..., outcome: _Optional[str] = ..., sentence: _Optional[str] = ...) -> None: ...

class MetricCut(_message.Message):
    __slots__ = ("dimension", "value", "variant", "metric", "control_units", "treatment_units", "control_value", "treatment_value", "lift", "difference", "anytime", "unadjusted", "bootstrap", "p_value", "anytime_p_value", "variance_kept", "detectable", "adjusted_p_value", "outcome")
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    CONTROL_UNITS_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_UNITS_FIELD_NUMBER: _ClassVar[int]
    CONTROL_VALUE_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIFT_FIELD_NUMBER: _ClassVar[int]
    DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_FIELD_NUMBER: _ClassVar[int]
    UNADJUSTED_FIELD_NUMBER: _ClassVar[int]
    BOOTSTRAP_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    VARIANCE_KEPT_FIELD_NUMBER: _ClassVar[int]
    DETECTABLE_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    dimension: str
    value: str
    variant: str
    metric: str
    control_units: int
    treatment_units: int
    control_value: float
    treatment_value: float
    lift: Bounds
    difference: Bounds
    anytime: Bounds
    unadjusted: Bounds
    bootstrap: Bounds
    p_value: float
    anytime_p_value: float
    variance_kept: float
    detectable: float
    adjusted_p_value: float
    outcome: str
    def __init__(self, dimension: _Optional[str] = ..., value: _Optional[str] = ..., variant: _Optional[str] = ..., metric: _Optional[str] = ..., control_units: _Optional[int] = ..., treatment_units: _Optional[int] = ..., control_value: _Optional[float] = ..., treatment_value: _Optional[float] = ..., lift: _Optional[_Union[Bounds, _Mapping]] = ..., difference: _Optional[_Union[Bounds, _Mapping]] = ..., anytime: _Optional[_Union[Bounds, _Mapping]] = ..., unadjusted: _Optional[_Union[Bounds, _Mapping]] = ..., bootstrap: _Optional[_Union[Bounds, _Mapping]] = ..., p_value: _Optional[float] = ..., anytime_p_value: _Optional[float] = ..., variance_kept: _Optional[float] = ..., detectable: _Optional[float] = ..., adjusted_p_value: _Optional[float] = ..., outcome: _Optional[str] = ...) -> None: ...

class LiftByDay(_message.Message):
    __slots__ = ("surface", "metric", "variant", "day", "lift", "anytime")
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    DAY_FIELD_NUMBER: _ClassVar[int]
    LIFT_FIELD_NUMBER: _ClassVar[int]
    ANYTIME_FIELD_NUMBER: _ClassVar[int]
    surface: str
    metric: str
    variant: str
    day: int
    lift: Bounds
    anytime: Bounds
    def __init__(self, surface: _Optional[str] = ..., metric: _Optional[str] = ..., variant: _Optional[str] = ..., day: _Optional[int] = ..., lift: _Optional[_Union[Bounds, _Mapping]] = ..., anytime: _Optional[_Union[Bounds, _Mapping]] = ...) -> None: ...

class VariantGuardrails(_message.Message):
    __slots__ = ("surface", "variant", "requests", "latency_p50_ms", "latency_p99_ms", "degraded_share", "empty_share", "coverage", "categories_in_ten", "error_share")
    SURFACE_FIELD_NUMBER: _ClassVar[int]
    VARIANT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P50_MS_FIELD_NUMBER: _ClassVar[int]
    LATENCY_P99_MS_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_SHARE_FIELD_NUMBER: _ClassVar[int]
    EMPTY_SHARE_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    CATEGORIES_IN_TEN_FIELD_NUMBER: _ClassVar[int]
    ERROR_SHARE_FIELD_NUMBER: _ClassVar[int]
    surface: str
    variant: str
    requests: int
    latency_p50_ms: float
    latency_p99_ms: float
    degraded_share: float
    empty_share: float
    coverage: float
    categories_in_ten: float
    error_share: float
    def __init__(self, surface: _Optional[str] = ..., variant: _Optional[str] = ..., requests: _Optional[int] = ..., latency_p50_ms: _Optional[float] = ..., latency_p99_ms: _Optional[float] = ..., degraded_share: _Optional[float] = ..., empty_share: _Optional[float] = ..., coverage: _Optional[float] = ..., categories_in_ten: _Optional[float] = ..., error_share: _Optional[float] = ...) -> None: ...
