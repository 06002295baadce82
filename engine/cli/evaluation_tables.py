"""What `engine evaluate` prints: one table a protocol, estimates with their standard errors."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.evaluation.metrics import MeanEstimate
    from engine.evaluation.new_users import NewUserFigures, NewUsersReport
    from engine.evaluation.run import MethodResult
    from engine.evaluation.run_new_items import NewItemsReport
    from engine.evaluation.run_next_event import NextEventReport


def show_leave_one_out(users: int, seeds: int, results: "list[MethodResult]") -> None:
    title = f"leave-one-out, {users:,} users, mean over {seeds} seeds (± standard error)"
    headings = ("HR@10", "NDCG@10", "HR@50", "coverage@10", "similarity@10", "@50")
    rows = [
        (
            result.method,
            *_written(result.hr_at_10, result.ndcg_at_10, result.hr_at_50),
            f"{result.coverage_at_10:.3f}",
            f"{result.intra_list_similarity_at_10.mean:.3f}",
            f"{result.intra_list_similarity_at_50.mean:.3f}",
        )
        for result in results
    ]
    print_table(title, headings, rows)


def show_next_event(seeds: int, report: "NextEventReport") -> None:
    headings = ("HR@10", "NDCG@10", "HR@50", "HR@10 gain")
    name = f"next-event, mean over {seeds} seeds (± standard error over users)"
    in_session = f"with a session under way: {report.in_session_events:,} events of {report.in_session_users:,} users"
    for title, methods in (
        (f"{name}: {report.events:,} events of {report.users:,} users", report.overall),
        (in_session, report.in_session),
    ):
        rows = [
            (method, *_written(part.hr_at_10, part.ndcg_at_10, part.hr_at_50, part.hr_at_10_gain))
            for method, part in methods.items()
        ]
        print_table(title, headings, rows)


def show_new_items(seeds: int, report: "NewItemsReport") -> None:
    title = (
        f"new-items, {report.items:,} new items a seed, {report.users:,} users asked {report.questions:,} times, "
        f"{seeds} seeds (± standard error over users)"
    )
    headings = ("HR@10", "NDCG@10", "HR@50", "HR@50 against content")
    rows = [
        (method, *_written(part.hr_at_10, part.ndcg_at_10, part.hr_at_50, part.hr_at_50_gain))
        for method, part in report.methods.items()
    ]
    print_table(title, headings, rows)


def show_new_users(seeds: int, report: "NewUsersReport") -> None:
    title = (
        f"new-users, {report.users:,} with demographics of {report.all_users:,} users, {report.by_segment:.0%} served "
        f"by segment, mean over {seeds} seeds (± standard error over users)"
    )
    headings = ("HR@10", "NDCG@10", "HR@50", "first five @10", "first five @50")

    def line(name: str, part: "NewUserFigures") -> tuple[str, ...]:
        shares = part.first_items_at_10, part.first_items_at_50
        return (name, *_written(part.hr_at_10, part.ndcg_at_10, part.hr_at_50, *shares))

    rows = [line(method, part) for method, part in report.methods.items()]
    print_table(title, headings, [*rows, line("difference", report.gain)])


def _written(*estimates: "MeanEstimate") -> list[str]:
    return [f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}" for estimate in estimates]


def print_table(
    title: str, headings: tuple[str, ...], rows: "Sequence[tuple[str, ...]]", first: str = "method"
) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    table.add_column(first)
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)
