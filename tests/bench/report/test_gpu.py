"""The section of the GPU's bench: of a whole file, of one whose run ended early, and of a rehearsal."""

from typing import Any

import pytest

from engine_bench.report.charts import Section
from engine_bench.report.gpu import gpu_sections, gpu_tables
from engine_bench.report.markdown import markdown
from engine_bench.report.page import all_sections, render
from engine_bench.report.read import Reports
from engine_bench.report.targets import judged
from tests.bench.report import files, gpu_file


def only(report: dict[str, Any]) -> Section:
    (section,) = gpu_sections(report)
    return section


def page_of(report: dict[str, Any], *sections: Section) -> str:
    """The page's text, its whitespace as a browser shows it."""
    return " ".join(render(Reports({"gpu": report}, {}), list(sections)).split())


@pytest.fixture(scope="module")
def whole() -> Section:
    return only(gpu_file.gpu())


def test_every_part_has_its_picture_and_its_table(whole: Section) -> None:
    assert [chart.name for chart in whole.charts] == [
        "gpu-retrieval", "gpu-filtered", "gpu-ranking", "gpu-stages", "gpu-loaded", "gpu-front-ends",
    ]  # fmt: skip
    assert [len(table.rows) for table in whole.tables] == [4 * 4 + 4, 4 * 4 * 2, 5, 6, 4, 10]
    assert all(len(row) == len(table.columns) for table in whole.tables for row in table.rows)


def test_the_device_and_its_floor_in_words(whole: Section) -> None:
    text = page_of(gpu_file.gpu(), whole)
    assert "Some GPU 80GB moves 2,500 GB a second within its memory" in text
    assert "750,000 billion operations a second in products of matrices" in text
    assert "differ by 0.0021 at most" in text
    assert "99.4% of the first 50" in text
    assert "Not in this file" not in text


def test_kinds_stand_beside_their_recall_and_the_floor(whole: Section) -> None:
    for written in (
        "exact-fused, recall 1.000",
        "cagra, recall 0.953–0.981",
        "the device's floor",
        "10M × 128 vectors",
    ):
        assert written in whole.charts[0].svg
    rows = {tuple(row[:2]): row[2:] for row in whole.tables[0].rows}
    assert rows["1M × 64", "the device's floor"] == ["", *["0.051"] * 5]
    # 10,000,000 vectors of 256 bytes at 2.5e12 bytes a second.
    assert rows["10M × 128", "the device's floor"] == ["", *["1.02"] * 5]
    assert rows["10M × 64", "cagra"][0] == "0.953"


def test_targets_are_met_missed_or_not_measured() -> None:
    found = judged(Reports({"gpu": gpu_file.gpu()}, {}))
    assert [each.outcome for each in found] == ["met", "MISSED", "met", "met", "met", "MISSED"]
    assert [each.relation for each in found] == ["≤"] * 5 + ["≥"]
    early = gpu_file.ended_early()
    assert [each.outcome for each in judged(Reports({"gpu": early}, {}))].count("not measured") == 5
    text = page_of(early)
    assert "<strong>1 of 1</strong> targets met, 5 more not measured" in text
    assert ">MISSED<" not in text
    # Those of ranking and requests are of a catalogue whose size a run can choose.
    assert "rank 1,000 candidates of one request, p50 ms, 1M items" in text


def test_a_target_that_the_report_does_not_know_is_shown_by_its_name() -> None:
    unknown = {"front_ends_requests_per_s": gpu_file.outcome(10.0, 12.0, True), "x_ms": None}
    (found,) = judged(Reports({"gpu": {"targets": unknown}}, {}))
    assert (found.title, found.relation, found.outcome) == ("front_ends_requests_per_s", "≥", "met")


def test_a_run_that_ended_early_shows_what_it_has_and_says_what_it_has_not() -> None:
    report = gpu_file.ended_early()
    section = only(report)
    assert [chart.name for chart in section.charts] == ["gpu-retrieval", "gpu-filtered", "gpu-ranking"]
    assert (
        "Not in this file, because its run did not get that far: whole requests; "
        "exact-classic and cagra over 1M × 128; any search over 10M × 64; any search over 10M × 128."
        in page_of(report, section)
    )
    assert not any("10M" in cell for table in section.tables for row in table.rows for cell in row)


@pytest.mark.parametrize(
    ("part", "value", "lost"),
    [
        ("floors", None, []),
        ("retrieval", [], [0, 1]),
        ("retrieval", [{}, None, {"kind": "cagra", "items": 1000, "dim": 16, "all_eligible": None}], [0, 1]),
        ("ranking", {"by_batch": [{"batch": 1}, {"p50_ms": 1.0}]}, [2]),
        ("requests", {"alone": None, "stages": None, "loaded": None}, [3, 4]),
        ("front_ends", None, [5]),
        ("front_ends", {"runs": [{"front_ends": 2}, 3]}, [5]),
        ("targets", None, []),
        ("settings", {"items": 3, "dims": ["x"], "kinds": None}, []),
        ("device", None, []),
    ],
)
def test_a_part_that_is_missing_or_odd_takes_nothing_else_along(
    part: str, value: Any, lost: list[int], whole: Section
) -> None:
    report = gpu_file.gpu() | {part: value}
    expected = [table for number, table in enumerate(whole.tables) if number not in lost]
    assert gpu_tables(report) == expected
    assert len(judged(Reports({"gpu": report}, {}))) == (0 if part == "targets" else 6)
    assert 'id="gpu"' in page_of(report, only(report))


def test_the_page_of_odd_parts_alone() -> None:
    report = {
        "floors": {"bytes_per_s": 1e10, "flops_per_s": 5e9},
        "ranking": {"by_batch": [{"batch": 2, "p50_ms": 1.0, "p99_ms": None}]},
        "requests": {"alone": None, "loaded": [{"callers": 1, "requests_per_s": 0.0}]},
        "retrieval": [{"kind": "new", "items": 1000, "dim": 16, "all_eligible": [], "filtered": None}],
    }
    section = only(report)
    assert [chart.name for chart in section.charts] == ["gpu-ranking", "gpu-loaded"]
    assert 'id="gpu"' in page_of(report, section)


def test_without_the_file_there_is_no_such_section() -> None:
    reports = Reports({"processor": files.all_files()["processor"]}, {})
    assert [section.name for section in all_sections(reports)] == ["processor"]
    text = render(reports, all_sections(reports))
    assert 'id="gpu"' not in text
    assert "<code>make bench-gpu</code>)" in text
    assert "on a GPU, " not in markdown(reports)


def test_floors_alone_make_a_section_without_pictures() -> None:
    report = {name: each for name, each in gpu_file.gpu().items() if name in ("device", "floors", "settings")}
    section = only(report)
    assert not section.charts
    assert not section.tables
    assert "ranking; whole requests; any search over 1M × 64" in page_of(report, section)


def test_a_rehearsal_says_that_it_is_one_and_is_judged_by_nothing() -> None:
    report = gpu_file.rehearsal()
    section = only(report)
    assert "rehearsal on the processor" in section.title
    assert "This is a rehearsal: everything ran on the processor" in page_of(report, section)
    # A chart can leave the page: it says so itself.
    assert all("rehearsed on the processor, not on a GPU" in chart.svg for chart in section.charts)
    assert {each.outcome for each in judged(Reports({"gpu": report}, {}))} == {"not judged"}
    assert "targets met" not in page_of(report, section)
    tables = markdown(Reports({"gpu": report}, {}))
    assert tables.count("rehearsed on the processor, not on a GPU (`make bench-gpu`)") == len(section.tables)
    assert "| met |" not in tables


def test_nothing_else_is_called_a_rehearsal(whole: Section) -> None:
    assert "rehears" not in page_of(gpu_file.gpu(), whole)
    assert "rehears" not in markdown(Reports({"gpu": gpu_file.gpu()}, {}))


def test_tables_for_a_readme() -> None:
    tables = markdown(Reports({"gpu": gpu_file.gpu()}, {}))
    assert "Ranking by requests in one call, on Some GPU 80GB (`make bench-gpu`):" in tables
    assert "| 4 | 0.38 | 0.53 | 0.095 |" in tables
    assert "| 10M × 64 | exact-fused | 64 | 1.53 – 2.15 | 1.53 – 2.15 | 1.53 – 2.15 |" in tables
    assert "| 32 | 736 | 43.5 | 60.9 |" in tables
    assert "| requests a second of one GPU, 1M items | ≥ 5,000 | 736 | MISSED |" in tables
    assert "Some Processor, 2 cores, 8.0 GiB of memory, Some GPU 80GB" in tables
