"""What the smaller benches say: start and memory, how soon changes show, events a second."""

from typing import Any

from engine_bench.report.charts import Bar, bars, rows_height, stacks
from engine_bench.report.drawing import draw
from engine_bench.report.numbers import amount, milliseconds
from engine_bench.report.read import Reports, number, objects
from engine_bench.report.section import Figure, Section, Table
from engine_bench.startup import OWN_MEMORY_AT_MOST_MIB, START_AT_MOST_S
from engine_bench.targets import TARGET_ITEMS, short


def other_sections(reports: Reports) -> list[Section]:
    """Each where there are figures."""
    sections = [_startup(reports.of("startup")), _changes(reports), _processor(reports.of("processor"))]
    return [section for section in sections if section is not None]


def _startup(report: dict[str, Any]) -> Section | None:
    sizes = [size for size in objects(report, "sizes") if number(size, "items") and number(size, "start_s", "median")]
    if not sizes:
        return None
    starts = [_start(size) for size in sizes]
    picture = draw(
        "startup",
        "Seconds to SERVING: " + "; ".join(f"{row.label} {row.text}" for row in starts),
        lambda figure, narrow: bars(figure, narrow, starts, "seconds"),
        rows_height(len(starts)),
    )
    caption = (
        "From the start of `engine serve` until its health says SERVING: median (lowest to highest) of starts with "
        "warm kernel caches, in which the bundle is verified, mapped and tried. Red: the most that it may take."
    )
    figures = [Figure("startup", "Start to SERVING", picture, caption)]
    memory = [
        (short(int(size["items"])) + " items", own, number(replica, "mapped_mib") or 0.0)
        for size in sizes
        for replica in list(objects(size, "memory"))[:1]
        if (own := number(replica, "own_mib")) is not None
    ]
    if memory:
        picture = draw(
            "memory",
            "Memory of a process: " + "; ".join(f"{label} {own:.0f} MiB of its own" for label, own, _ in memory),
            lambda figure, narrow: stacks(
                figure,
                narrow,
                memory,
                ("its own", "mapped files, shared"),
                "MiB resident",
                OWN_MEMORY_AT_MOST_MIB,
            ),
            rows_height(len(memory)) + 0.2,
            rows_height(len(memory)) + 0.6,
        )
        caption = (
            "One serving process of two over the same bundle, after 500 requests. Its own: private memory (USS) less "
            "pages of mapped files. The rest is in the page cache once, however many processes there are."
        )
        figures.append(Figure("memory", "Memory", picture, caption))
    rows = [
        [
            f"{size['items']:,.0f}",
            str(replica_number),
            *(amount(number(replica, f"{name}_mib")) for name in ("rss", "uss", "own", "mapped")),
        ]
        for size in sizes
        for replica_number, replica in enumerate(objects(size, "memory"), start=1)
    ]
    columns = ["items", "process", "resident MiB", "unique (USS) MiB", "its own MiB", "mapped files MiB"]
    paragraphs = ["A process serves once everything is checked and warm; what it maps it shares with its neighbours."]
    return Section("startup", "Start and memory", "startup", paragraphs, figures, [Table("Memory", columns, rows)])


def _start(size: dict[str, Any]) -> Bar:
    median = number(size, "start_s", "median") or 0.0
    lowest, highest = number(size, "start_s", "lowest"), number(size, "start_s", "highest")
    text = f"{amount(median)} s ({amount(lowest)}–{amount(highest)})"
    # The bound is that of a certain size.
    bound = START_AT_MOST_S if size["items"] <= TARGET_ITEMS else None
    return Bar(f"{short(int(size['items']))} items", median, text, bound)


def _changes(reports: Reports) -> Section | None:
    freshness, inventory = reports.of("freshness"), reports.of("inventory")
    found = (
        ("a click shows", freshness, "p50_ms", "p99_ms", "p99_ms"),
        ("sold out is gone", inventory, "p50_ms", "p99_ms", "p99_ms"),
        ("a new item is there", inventory, "new_item_p50_ms", "new_item_p99_ms", "new_item_p99_ms"),
    )
    rows, cells = [], []
    for label, report, p50_name, p99_name, target_name in found:
        p50, p99 = number(report, p50_name), number(report, p99_name)
        if p50 is None or p99 is None:
            continue
        bound = next(
            (number(each, "bound") for each in objects(report, "targets") if each.get("name") == target_name), None
        )
        rows.append(Bar(label, p99, f"{milliseconds(p99)} ms (p50 {milliseconds(p50)})", bound))
        cells.append([label, milliseconds(p50), milliseconds(p99), amount(bound)])
    if not rows:
        return None
    picture = draw(
        "changes",
        "Time until changes show, p99: " + "; ".join(f"{row.label} {row.text}" for row in rows),
        lambda figure, narrow: bars(figure, narrow, rows, "milliseconds, p99"),
        rows_height(len(rows)),
    )
    caption = (
        "From the moment that the engine acknowledged a change until answers showed it, everything real and in "
        "processes of its own: Kafka, stream processor, Redis, one server (clicks) or two under load (catalogue). "
        "Red: the most that it may take."
    )
    return Section(
        "changes",
        "How soon a change shows",
        "freshness" if freshness else "inventory",
        ["What people do and what the shop changes is in the next answer, not in the next hour's."],
        [Figure("changes", "From acknowledgement to answer", picture, caption)],
        [Table("Changes", ["change", "p50 ms", "p99 ms", "at most ms"], cells)],
    )


def _processor(report: dict[str, Any]) -> Section | None:
    per_s = number(report, "events_per_s")
    if per_s is None:
        return None
    events, users, seconds = (number(report, name) for name in ("events", "users", "seconds"))
    text = (
        f"One stream processor applies {amount(per_s)} events a second to a real Redis: {amount(events)} events of "
        f"{amount(users)} people in {amount(seconds)} s, read from a consumer group, the feeding on the same machine."
    )
    if (processor_us := number(report, "processor_cpu_us")) is not None:
        text += f" An event takes {processor_us:.1f} \N{MICRO SIGN}s of a core in the processor"
        redis_us = number(report, "redis_cpu_us")
        text += "." if redis_us is None else f" and {redis_us:.1f} \N{MICRO SIGN}s in Redis."
    return Section("processor", "Events a second", "processor", [text])
