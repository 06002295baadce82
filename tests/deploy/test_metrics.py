"""Dashboards, alerts and the autoscaler ask for metrics that the engine has."""

import json
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from engine.rpc.metrics import ServerMetrics
from engine.rpc.metrics_endpoint import MetricsEndpoint
from engine.runtime.stalls.metrics import StallMetrics
from engine.stream.metrics import ProcessorMetrics
from tests.deploy.files import DEPLOY, KUBERNETES, documents

# Prometheus' own, and those of kube-state-metrics.
OTHERS = {"up": {"job", "instance"}, "kube_cronjob_status_last_successful_time": {"cronjob"}}
# What scraping adds.
TARGET_LABELS = {"job", "instance", "namespace", "pod", "le"}


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Every series by name, as Prometheus sees it, with its labels."""
    registry = CollectorRegistry()
    ServerMetrics(registry)
    StallMetrics(registry)
    ProcessorMetrics("live", registry)
    with MetricsEndpoint("127.0.0.1", 0) as endpoint:
        own = [endpoint._wanted, endpoint._serving, endpoint._silent, endpoint._ended]
        collectors = [*registry._collector_to_names, *own]
    series = dict(OTHERS)
    for collector in collectors:
        assert isinstance(collector, MetricWrapperBase)
        [family] = collector.describe()
        labels = set(collector._labelnames)
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        series |= {family.name + suffix: labels for suffix in suffixes}
    return series


def expressions() -> Iterator[tuple[str, str]]:
    [alerts] = documents(DEPLOY / "prometheus/alerts.yml")
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((DEPLOY / "grafana/engine.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']}-{target['refId']}", target["expr"].replace("$__rate_interval", "1m")


def selectors(node: Any) -> Iterator[tuple[str, set[str]]]:
    """The metrics that an expression reads, each with the labels that it selects or groups by."""
    if isinstance(node, promql_parser.VectorSelector):
        assert node.name is not None
        yield node.name, {matcher.name for matcher in node.matchers.matchers}
    elif isinstance(node, promql_parser.AggregateExpr):
        by = set(node.modifier.labels) if node.modifier else set()
        for name, labels in selectors(node.expr):
            yield name, labels | by
    elif isinstance(node, promql_parser.MatrixSelector):
        yield from selectors(node.vector_selector)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument)
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs)
        yield from selectors(node.rhs)
    elif isinstance(node, promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        yield from selectors(node.expr)


@pytest.mark.parametrize("expression", [pytest.param(expr, id=name) for name, expr in expressions()])
def test_every_expression_reads_what_is_there(expression: str, known: dict[str, set[str]]) -> None:
    read = list(selectors(promql_parser.parse(expression)))
    assert read
    for name, labels in read:
        assert name in known
        assert labels <= known[name] | TARGET_LABELS


def test_a_metric_that_is_not_there_is_noticed(known: dict[str, set[str]]) -> None:
    [(name, labels)] = selectors(promql_parser.parse("sum by (way) (rate(engine_recommendation_total[5m]))"))
    assert name not in known
    assert not labels <= known["engine_recommendations_total"] | TARGET_LABELS


def test_the_autoscaler_reads_what_the_adapter_makes_of_what_is_there(known: dict[str, set[str]]) -> None:
    [adapter] = documents(DEPLOY / "prometheus/adapter.yaml")
    autoscaler = documents(KUBERNETES / "base/autoscale.yaml")[0]
    pods = [metric["pods"]["metric"]["name"] for metric in autoscaler["spec"]["metrics"] if metric["type"] == "Pods"]
    assert pods == [rule["name"]["as"] for rule in adapter["rules"]["custom"]]
    for rule in adapter["rules"]["custom"]:
        [(name, _)] = selectors(promql_parser.parse(rule["seriesQuery"]))
        assert name in known
        assert rule["name"]["matches"] == name
