"""ExperimentService: validate, ask for the report, convert."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
from google.protobuf.json_format import ParseDict

from engine.contract.limits import MAX_ID_BYTES, MAX_SURFACE_BYTES
from engine.contract.text import checked_text
from engine.contract.times import timestamp_ms
from engine.errors import InvalidRequest
from engine.experiments.analysis.report_query import ReportQuery
from engine_client.v1 import experiment_pb2 as pb
from engine_client.v1 import experiment_pb2_grpc as pb_grpc

MAX_VARIANTS = 100


class Reporter(Protocol):
    """What the service needs of the analysis."""

    async def report(self, question: ReportQuery) -> Mapping[str, Any]:
        """The report as JSON has it: its keys are the fields of engine.v1.ExperimentReport.

        Raises:
            InvalidRequest: nobody was exposed to this, or the control cannot be told.
            Overloaded: too many reports are being made. DependencyUnavailable: the archive cannot be read.
        """
        ...


class ExperimentServicer(pb_grpc.ExperimentServiceServicer):
    """The service over one reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    async def GetReport(  # noqa: N802
        self, request: pb.GetReportRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetReportResponse:
        report = await self._reporter.report(to_report_query(request))
        # A report of many days is thousands of fields, which take a while in Python.
        message = await asyncio.to_thread(ParseDict, dict(report), pb.ExperimentReport())
        return pb.GetReportResponse(report=message)


def to_report_query(request: pb.GetReportRequest) -> ReportQuery:
    """The request, every field checked.

    Raises:
        InvalidRequest: with the path of the first bad field and what is wrong with it.
    """
    if len(request.shares) > MAX_VARIANTS:
        raise InvalidRequest("shares", f"must be at most {MAX_VARIANTS}, got {len(request.shares)}")
    for name, share in request.shares.items():
        if not (math.isfinite(share) and share > 0):
            raise InvalidRequest("shares", f"must be above 0, but that of {name!r} is {share:g}")
    from_ms = timestamp_ms("served_from", request.served_from) if request.HasField("served_from") else None
    to_ms = timestamp_ms("served_to", request.served_to) if request.HasField("served_to") else None
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise InvalidRequest("served_to", "must be later than served_from")
    return ReportQuery(
        experiment=checked_text("experiment", request.experiment, MAX_ID_BYTES, required=True),
        surface=checked_text("surface", request.surface, MAX_SURFACE_BYTES),
        from_ms=from_ms,
        to_ms=to_ms,
        control=checked_text("control", request.control, MAX_ID_BYTES),
        shares=dict(sorted(request.shares.items())),
    )
