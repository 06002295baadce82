"""The HTML page: what is on it, and what a real browser makes of it."""

import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.experiments.analysis.compare import Bounds, Day
from engine.experiments.analysis.page import render_page
from engine.experiments.analysis.plots import curve, scale_around
from engine.experiments.analysis.report import Report
from engine.experiments.analysis.verdict import ReportVerdict

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
# A desktop and a phone.
WIDTHS = (1200, 390)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip
# Elements that are never closed.
VOID = {"meta"}


def browse(home: Path, *arguments: str) -> str:
    assert BROWSER is not None
    profile = f"--user-data-dir={home / 'profile'}"
    return subprocess.run(
        [BROWSER, *FLAGS, profile, *arguments], check=True, capture_output=True, text=True, timeout=120
    ).stdout


class Checked(HTMLParser):
    """Raises where tags do not nest; collects the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(page: str) -> Checked:
    checked = Checked()
    checked.feed(page)
    checked.close()
    assert checked.open == []
    return checked


def test_everything_is_on_it_and_nothing_is_fetched(report: Report) -> None:
    page = render_page(report)
    checked = parsed(page)
    text = " ".join(" ".join(checked.text).split())
    assert report.verdict.headline in text
    for note in report.notes:
        assert note in text
    for line in report.comparisons:
        assert line.figures.metric not in text
    assert checked.links == []
    assert "<script" not in page
    assert not re.search(r"url\(|@import|https?:", page)


def test_a_name_is_text_and_not_markup(report: Report) -> None:
    page = render_page(replace(report, experiment="<script>alert(1)</script>"))
    parsed(page)
    assert "<script" not in page


def test_what_must_not_be_read_says_so(report: Report) -> None:
    page = render_page(replace(report, verdict=ReportVerdict(False, "Do not read these numbers: 1 and 2", ())))
    assert 'class="card verdict unreadable"' in page


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
def test_in_a_browser(report: Report, tmp_path: Path, width: int) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_page(report), encoding="utf-8")
    picture = tmp_path / "report.png"
    browse(tmp_path, f"--window-size={width},2400", f"--screenshot={picture}", page.as_uri())
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    assert len(pixels) == width * 2400
    # Text, cards and pictures: no empty page, and not mostly one colour either.
    assert len(colours) > 100
    assert counts.max() < 0.9 * len(pixels)
    # The accent of the curves and of the verdict's edge.
    assert (np.abs(pixels.astype(int) - [0x2A, 0x5B, 0xD7]).sum(axis=1) < 12).sum() > 100


@needs_browser
def test_nothing_sticks_out(report: Report, tmp_path: Path) -> None:
    """In frames of these widths, the page is no wider than its frame."""
    quoted = render_page(report).replace("&", "&amp;").replace('"', "&quot;")
    frames = "".join(
        f'<iframe style="border: 0" width="{width}" height="900" srcdoc="{quoted}"></iframe>' for width in WIDTHS
    )
    measure = (
        "window.onload = () => { document.title = [...document.querySelectorAll('iframe')].map(frame => {"
        "const page = frame.contentDocument.documentElement; return page.scrollWidth + '/' + page.clientWidth;"
        "}).join(' '); };"
    )
    outer = tmp_path / "frames.html"
    outer.write_text(f"<!doctype html><title></title>{frames}<script>{measure}</script>", encoding="utf-8")
    dumped = browse(tmp_path, "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom", outer.as_uri())
    measured = re.search(r"<title>([^<]*)</title>", dumped)
    assert measured is not None
    assert measured[1] == " ".join(f"{width}/{width}" for width in WIDTHS)


class TestPlots:
    def test_the_scale_holds_all_and_zero(self) -> None:
        scale = scale_around([Bounds(0.2, 0.1, 0.3)], 100)
        assert 0 <= scale(0.0) < scale(0.1) < scale(0.3) <= 100
        assert 0.0 in scale.ticks
        assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
        assert 3 <= len(scale.ticks) <= 8

    def test_a_wild_interval_is_cut(self) -> None:
        scale = scale_around([Bounds(0.5, -0.9, 40.0)], 100)
        assert scale.high < 1.2
        assert scale(40.0) == 100

    def test_nothing_known(self) -> None:
        scale = scale_around([], 100)
        assert 0 < scale(0.0) < 100

    def test_one_day_is_a_curve(self) -> None:
        bounds = Bounds(0.1, 0.0, 0.2)
        drawn = curve([Day("home", "revenue", "engine", 20_000, bounds, bounds)], 100, 50)
        assert drawn.line == f"{drawn.last[0]},{drawn.last[1]}"
