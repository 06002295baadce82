"""ExperimentService: validate, ask for the report, convert."""

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
from google.protobuf.json_format import ParseDict

from engine.experiments.analysis.question import Question
from engine.rpc.validate_experiment import to_question
from engine.v1 import experiment_pb2 as pb
from engine.v1 import experiment_pb2_grpc as pb_grpc


class Reporter(Protocol):
    """What the service needs of the analysis."""

    async def report(self, question: Question) -> Mapping[str, Any]:
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
        report = await self._reporter.report(to_question(request))
        # A report of many days is thousands of fields, which take a while in Python.
        message = await asyncio.to_thread(ParseDict, dict(report), pb.ExperimentReport())
        return pb.GetReportResponse(report=message)
