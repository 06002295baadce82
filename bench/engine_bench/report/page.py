"""The page: sections in their order, rendered by templates into one file that needs nothing else."""

import re
from pathlib import Path
from typing import Any

from engine.errors import ConfigError
from engine_bench.report.charts import PALETTE, Section
from engine_bench.report.gpu import gpu_sections, missing_parts
from engine_bench.report.read import SOURCES, Reports, objects, provenance
from engine_bench.report.suite import requests, suite_sections
from engine_bench.report.system import system_sections
from engine_bench.report.tables import amount, milliseconds
from engine_bench.report.targets import judged
from engine_bench.targets import GROWTH_AT_MOST, target_size


def write_page(reports: Reports, output: Path) -> list[Path]:
    """Write the page, and beside it every chart as a PNG.

    Args:
        output: the page's file; charts go into `<its name without suffix>-figures`.

    Returns all files that were written. Raises ConfigError where jinja2 or matplotlib is not installed.
    """
    sections = all_sections(reports)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render(reports, sections))
    written = [output]
    pictures = output.with_name(f"{output.stem}-figures")
    pictures.mkdir(exist_ok=True)
    for chart in (chart for section in sections for chart in section.charts):
        written.append(pictures / f"{chart.name}.png")
        written[-1].write_bytes(chart.png)
    return written


def all_sections(reports: Reports) -> list[Section]:
    """Those for which there are figures, in the order of the page."""
    return [*suite_sections(reports.of("bench")), *system_sections(reports), *gpu_sections(reports.of("gpu"))]


def render(reports: Reports, sections: list[Section]) -> str:
    """The page's HTML; charts are inline, and nothing is fetched."""
    jinja2 = _require_jinja()
    # What a file does not hold is undefined in the templates, however deep.
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.ChainableUndefined,
    )  # fmt: skip
    environment.filters |= {
        "amount": amount,
        "ms": milliseconds,
        "code": _code,
        "objects": lambda tree: list(objects({"": tree}, "")),
    }
    found = {source.name: provenance(reports.of(source.name)) for source in SOURCES if source.name in reports.found}
    targets, by_items = judged(reports), requests(reports.of("bench"))
    page: str = environment.get_template("page.html.j2").render(
        targets=targets,
        counted=[each for each in targets if each.counts],
        sections=sections,
        reports={source.name: reports.of(source.name) for source in SOURCES},
        whole=by_items[target_size(by_items)] if by_items else {},
        growth_at_most=GROWTH_AT_MOST,
        absent=missing_parts(reports.of("gpu")),
        sources={source.name: source for source in SOURCES},
        missing=reports.missing,
        problems=reports.problems,
        origins=found,
        machines=sorted({each.machine for each in found.values()}),
        commits=sorted({each.commit for each in found.values()}),
        dates=sorted(each.date for each in found.values()),
        palette=PALETTE,
    )
    return page


def _code(text: str) -> Any:
    """Text for a page, in which what is between backticks is code."""
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
