"""The page: sections in their order, rendered by a template into one file that needs nothing else."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine_bench.report.drawing import PALETTE
from engine_bench.report.goals import goals
from engine_bench.report.numbers import amount
from engine_bench.report.read import SOURCES, Provenance, Reports, Source, provenance
from engine_bench.report.section import Section
from engine_bench.report.sections_gpu import gpu_sections
from engine_bench.report.sections_load import load_sections
from engine_bench.report.sections_other import other_sections
from engine_bench.report.sections_peers import peer_sections
from engine_bench.report.sections_suite import suite_sections
from engine_bench.report.suite import read_suite

TEMPLATE = Path(__file__).with_name("page.html")


@dataclass(frozen=True, slots=True)
class Origin:
    """One file of the report, and where it was made; `provenance` is None where there is no file."""

    source: Source
    provenance: Provenance | None
    problem: str


def write_page(reports: Reports, output: Path) -> list[Path]:
    """Write the page, and beside it every picture as a PNG.

    Args:
        output: the page's file; pictures go into `<its name without suffix>-figures`.

    Returns all files that were written. Raises ConfigError where jinja2 or matplotlib is not installed.
    """
    sections = all_sections(reports)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(reports, sections))
    written = [output]
    pictures = output.with_name(f"{output.stem}-figures")
    pictures.mkdir(exist_ok=True)
    for figure in (figure for section in sections for figure in section.figures):
        written.append(pictures / f"{figure.name}.png")
        written[-1].write_bytes(figure.picture.png)
    return written


def all_sections(reports: Reports) -> list[Section]:
    return [
        *suite_sections(read_suite(reports.of("bench"))),
        *load_sections(reports.of("load")),
        *peer_sections(reports.of("peers")),
        *other_sections(reports),
        *gpu_sections(reports.of("gpu")),
    ]


def render(reports: Reports, sections: list[Section]) -> str:
    """The page's HTML; figures are inline, and nothing is fetched."""
    found = goals(reports)
    origins = {
        source.name: Origin(
            source,
            provenance(reports.of(source.name)) if source.name in reports.found else None,
            reports.problems.get(source.name, ""),
        )
        for source in SOURCES
    }
    known = [origin.provenance for origin in origins.values() if origin.provenance is not None]
    environment = _require_jinja().Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["amount"] = amount
    environment.filters["code"] = _code
    page: str = environment.from_string(TEMPLATE.read_text()).render(
        goals=found,
        missing=reports.missing,
        met=sum(goal.met is True for goal in found),
        judged=sum(goal.met is not None for goal in found),
        sections=sections,
        origins=origins,
        titles={source.name: source.title for source in SOURCES},
        machines=sorted({each.machine for each in known}),
        commits=sorted({each.commit for each in known}),
        dates=sorted(each.date for each in known),
        palette=PALETTE,
    )
    return page


def _code(text: str) -> Any:
    """Text for a page, in which what stands between backticks is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _require_jinja() -> Any:
    try:
        import jinja2
    except ImportError:
        raise ConfigError(
            "the report needs the package jinja2, which comes with the bench: pip install ./bench"
        ) from None
    return jinja2
