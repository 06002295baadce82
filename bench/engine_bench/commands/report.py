"""`engine bench report`: one page, or the README's tables, from what the other benches wrote."""

from pathlib import Path
from typing import Annotated

import typer

from engine.cli.needs import needs


@needs("cpu", "train")
def report(
    directory: Annotated[Path, typer.Option("--input", help="Where the benches' JSON files are.")] = Path(
        ".benchmarks"
    ),
    output: Annotated[
        Path | None, typer.Option(help="The page to write; report.html beside the JSON files by default.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown tables instead.")] = False,
) -> None:
    """Make one self-contained HTML page of all that was measured, and a PNG of each of its figures.

    Whatever file is missing, the page says which command makes it.
    """
    from engine_bench.report.read import read_reports

    reports = read_reports(directory)
    if markdown:
        from engine_bench.report.markdown import markdown as tables

        print(tables(reports), end="")
        return
    from engine_bench.report.page import write_page

    written = write_page(reports, output or directory / "report.html")
    print(f"{written[0]}: {len(written) - 1} figures, from {', '.join(f'{name}.json' for name in reports.found)}")
    for problem in reports.problems.values():
        print(problem)
