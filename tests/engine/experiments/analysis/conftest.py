from pathlib import Path

import pytest

from engine.experiments.analysis.files import Archive
from engine.experiments.analysis.metrics import ExperimentData
from engine.experiments.analysis.read import count
from engine.experiments.analysis.report import Report, make_report
from engine.experiments.analysis.report_query import ReportQuery
from tests.engine.experiments.analysis.shop import CATEGORIES, Shop, open_shop

HALVES = {"control": 1.0, "engine": 1.0}
QUESTION = ReportQuery("worth", shares=HALVES)


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive in which the engine earns a quarter more clicks."""
    return open_shop(tmp_path_factory.mktemp("shop"), seed=5, shop=Shop(users=4_000))


@pytest.fixture(scope="session")
def lossy_shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with users missing from the control."""
    return open_shop(tmp_path_factory.mktemp("lossy"), seed=6, shop=Shop(users=3_000, engine_share=0.56))


@pytest.fixture(scope="session")
def counted(shop: Path) -> ExperimentData:
    return count(Archive.within(shop), QUESTION, CATEGORIES)


@pytest.fixture(scope="session")
def report(counted: ExperimentData) -> Report:
    return make_report(counted, QUESTION)
