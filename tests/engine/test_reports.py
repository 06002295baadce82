"""Reports from a whole server, of what is archived while it serves."""

from pathlib import Path

from engine.app.serve import running_server
from engine.config.serving import EngineConfig
from engine_client import AsyncRecommendationClient
from tests.conftest import Trained
from tests.engine.experiments.analysis.shop import Shop, open_shop


async def test_a_server_with_an_archive_reports(trained: Trained, tmp_path: Path) -> None:
    # The shop's items have the ids of the bundle's, whose categories the report then knows.
    open_shop(tmp_path / "archive", seed=3, shop=Shop(users=300, days=4))
    config = EngineConfig.load(
        server={"host": "127.0.0.1", "port": 0, "drain_s": 2},
        redis={"directory": tmp_path / "redis", "timeout_ms": 5_000},
        kafka={"directory": tmp_path / "kafka"},
        bundle={"directory": trained.bundles.directory},
        reports={"archive": tmp_path / "archive"},
    )
    async with running_server(config) as server, AsyncRecommendationClient(f"127.0.0.1:{server.port}") as client:
        report = await client.get_report("worth", shares={"control": 1, "engine": 1})
    assert report.control == "control"
    assert [split.surface for split in report.splits] == ["cart", "home", "all"]
    assert len(report.guardrails) == 6
    assert all(line.HasField("categories_in_ten") for line in report.guardrails)
