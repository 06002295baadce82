"""What the settings say is asked for, unless the question says otherwise."""

import pytest

from engine.config.serving import EngineConfig
from engine.experiments.analysis.report_query import ReportQuery, as_declared

CONFIG = EngineConfig.load(
    holdout={"share": 0.1},
    experiments=[  # type: ignore[arg-type]  # sections that are lists
        {
            "name": "worth",
            "surfaces": ["home"],
            "variants": [{"name": "engine", "share": 0.8}, {"name": "popular", "share": 0.2, "baseline": True}],
        },
        {
            "name": "mix",
            "surfaces": ["cart"],
            "variants": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.5, "ranker": False}],
        },
    ],
)


@pytest.mark.parametrize(
    ("experiment", "shares", "control"),
    [
        ("worth", {"engine": 0.8, "popular": 0.2}, "popular"),
        ("mix", {"a": 0.5, "b": 0.5}, ""),
        ("holdout", {"baseline": 0.1, "engine": 0.9}, "baseline"),
        ("unknown", {}, ""),
    ],
)
def test_it_is_filled_in(experiment: str, shares: dict[str, float], control: str) -> None:
    question = as_declared(ReportQuery(experiment), CONFIG)
    assert question.shares == pytest.approx(shares)
    assert question.control == control


def test_the_question_goes_first() -> None:
    asked = ReportQuery("worth", control="engine", shares={"engine": 1, "popular": 1})
    assert as_declared(asked, CONFIG) == asked


def test_no_holdout_is_none() -> None:
    assert as_declared(ReportQuery("holdout"), EngineConfig.load()).shares == {}
