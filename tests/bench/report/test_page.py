"""The page as it is written, from files of every shape, and from any few of them."""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import ConfigError
from engine_bench.commands.bench import app
from engine_bench.report.charts import PALETTE
from engine_bench.report.page import all_sections, render, write_page
from engine_bench.report.read import SOURCES, Reports, read_reports
from tests.bench.report import files

_VOID = {"meta", "br", "img", "path", "use", "link"}


class Page(HTMLParser):
    """Tags that are balanced, ids, and where anything points to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(attrs)

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("href", "src", "xlink:href"):
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[Path]]:
    home = tmp_path_factory.mktemp("report")
    paths = write_page(read_reports(files.write(home / "in")), home / "out" / "page.html")
    return paths[0].read_text(), paths[1:]


def test_it_stands_alone(written: tuple[str, list[Path]]) -> None:
    text, _ = written
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    # Nothing is fetched, and nothing points to where there is nothing.
    assert {link[0] for link in page.links} == {"#"}
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert not re.search(r"url\((?!#)|@import|<script|<img|<link", text)


def test_every_figure_explains_itself_to_eyes_and_ears(written: tuple[str, list[Path]]) -> None:
    text, pictures = written
    count = text.count("<figure>")
    assert count == text.count("<figcaption>") == len(pictures) == 22
    assert text.count('role="img" aria-label="') == count
    # Every figure has the command that measured it.
    assert len(re.findall(r"<figcaption>.*<code>(make|engine) bench.*</code></figcaption>", text)) == count
    assert not re.search(r'<figcaption>.{0,60}</figcaption>|aria-label=""', text)
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)


def test_colours_are_the_readers(written: tuple[str, list[Path]]) -> None:
    text, _ = written
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL))
    assert "var(--blue)" in drawn
    # What is not a variable does not follow the reader's colour scheme; black is matplotlib's default.
    assert set(re.findall(r"#[0-9a-f]{6}\b", drawn)) <= {"#000000"}
    assert not re.search(r"(fill|stroke): #000000", drawn)
    assert all(f"--{name}: {dark}" in text for name, (_, dark) in PALETTE.items())


def test_figures_are_on_it(written: tuple[str, list[Path]]) -> None:
    words = " ".join(" ".join(Page(written[0]).words).split())
    for said in (
        "12 of 15 targets met",
        "A whole request over 1,000,000 items takes 2.60 ms at p50 and 5.20 ms at p99",
        "300 requests a second are answered with p99 within 100 ms, in 3 of 3 repeats",
        "recall@1000 of the search 0.981",
        "applies 22,075 events a second",
        "An event takes 17.4 µs of a core in the processor and 9.80 µs in Redis.",
        "Some Processor, 2 cores",
        "commit 0123456789ab",
        "not installed",
    ):
        assert said in words


@pytest.mark.parametrize("name", [source.name for source in SOURCES])
def test_the_page_of_one_file_says_how_to_make_the_others(name: str) -> None:
    reports = Reports({name: files.all_files()[name]}, {})
    text = render(reports, [])
    words = " ".join(Page(text).words)
    assert "Not measured yet" in words
    for source in SOURCES:
        assert (f"<code>{source.command}</code>)" in text) == (source.name != name)


@pytest.mark.parametrize(("name", "rows"), [("freshness", 1), ("inventory", 2)])
def test_a_section_of_two_files_is_there_for_one(name: str, rows: int) -> None:
    (section,) = all_sections(Reports({name: files.all_files()[name]}, {}))
    assert section.sources == [name]
    assert len(section.charts) == 1
    assert len(section.tables[0].rows) == rows


def test_empty_and_foreign_files_make_a_page_without_pictures() -> None:
    reports = Reports({source.name: {"benchmarks": [{}], "runs": [3], "sizes": None} for source in SOURCES}, {})
    assert all_sections(reports) == []
    Page(render(reports, []))


def test_a_size_alone_says_what_would_show_growth() -> None:
    suite = files.suite()
    (request,) = (bench for bench in suite["benchmarks"] if bench["name"] == "test_request[1000000]")
    request["extra_info"] |= {"parts_ms": {}, "stages_ms": {}}  # nothing to draw, either
    suite["benchmarks"] = [request]
    reports = Reports({"bench": suite}, {})
    growth = next(section for section in all_sections(reports) if section.name == "growth")
    assert growth.charts == ()
    assert "BENCH_ITEMS" in render(reports, [growth])


def test_text_of_files_is_text_on_the_page() -> None:
    report = {"targets": [files.target("<b>x</b>", 1.0, 2.0, True)], "events_per_s": 3}
    text = render(Reports({"processor": report}, {"load": "load.json: <i>"}), [])
    assert "<b>x" not in text
    assert "&lt;b&gt;x" in text


def test_the_command_writes_the_page_and_prints_markdown(tmp_path: Path) -> None:
    files.write(tmp_path, ("load", "processor"))
    (tmp_path / "peers.json").write_text("{")
    made = CliRunner().invoke(app, ["report", "--input", str(tmp_path)])
    assert made.exit_code == 0, made.output
    assert (tmp_path / "report.html").exists()
    assert "peers.json cannot be read" in made.output
    files.write(tmp_path, ("bench",))
    tables = CliRunner().invoke(app, ["report", "--input", str(tmp_path), "--markdown"])
    assert tables.exit_code == 0, tables.output
    assert "| rank 1000 | 1.04 | 2.08 | 30 |" in tables.output
    assert "| 100 | 300 |" in tables.output
    assert "| request total p50 ms, 1M items | ≤ 3.50 | 2.60 | met |" in tables.output


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=f"{package}.*pip install"):
        write_page(
            Reports({"processor": files.all_files()["processor"], "startup": files.startup()}, {}), tmp_path / "x"
        )
