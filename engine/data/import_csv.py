"""A shop's CSV export into canonical tables, as a mapping says (engine.data.mapping)."""

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

import polars as pl

from engine.contract.values import VALUE_TYPES
from engine.data.faults import Fault, summary
from engine.data.files import Unreadable
from engine.data.foreign import ForeignTable, ImportFindings, ignored, read_text
from engine.data.import_items import derived_items, items_of
from engine.data.mapping import IGNORE, EventsSection, FormatSection, Mapping
from engine.data.rules import TableRules
from engine.data.schema import INTERACTIONS, USERS
from engine.data.tables import Imported, make_tables, write_tables
from engine.data.validate import inspect
from engine.data.written import ids, numbers, times_ms, without_zone
from engine.errors import ConfigError, DataError
from engine.types import EventType

_TYPES = tuple(kind.name.lower() for kind in EventType)
_WITH_VALUE = sorted(kind.name.lower() for kind in VALUE_TYPES)


class ImportRefused(DataError):
    """Files that cannot be imported as they are; `faults` has everything that is wrong with them."""

    def __init__(self, faults: Sequence[Fault], bad_rows: int) -> None:
        super().__init__(f"{summary(faults, '')}: nothing was written")
        self.faults = tuple(faults)
        self.bad_rows = bad_rows


def import_csv(files: Sequence[Path], out_dir: Path, mapping: Mapping, rules: TableRules) -> Imported:
    """Convert the files and write the canonical tables to `out_dir`.

    Args:
        files: each is taken by the section whose patterns its name fits; those that fit none are events.

    Raises:
        ImportRefused: with all that is wrong: file, column and row, as the files have them.
        ConfigError: files that the mapping has no use for, or none for what it wants.
    """
    found = ImportFindings()
    taken = _assign(files, mapping)
    events: list[pl.DataFrame] = []
    lines: list[ForeignTable] = []
    for path in taken["events"]:
        table = _open(path, mapping.format, _named(mapping.events.columns), "events", found)
        if table is None:
            continue
        used = [*_named(mapping.events.columns).values()]
        if not mapping.items.files:
            used += [*_item_columns(mapping).values(), *mapping.items.columns.attributes]
        found.notes += ignored(path, table.frame, used)
        events.append(_events(table, mapping.events, mapping.format, rules))
        lines.append(table)
    items = [
        items_of(table, mapping, rules)
        for path in taken["items"]
        if (table := _open(path, mapping.format, _item_columns(mapping), "items", found)) is not None
    ]
    if lines and not mapping.items.files:
        items = [derived_items(lines, mapping)]
    users = [
        _users(table, rules)
        for path in taken["users"]
        if mapping.users is not None
        and (table := _open(path, mapping.format, _named(mapping.users.columns), "users", found)) is not None
    ]
    unusable = not events or any(not fault.of_rows for fault in found.faults)
    if found.faults and (unusable or found.bad_rows > rules.skip_bad_rows):
        raise ImportRefused(found.faults, found.bad_rows)
    found.notes += [f"left out {fault.count:,} rows: {fault}" for fault in found.faults]
    return _write(events, items, users, out_dir, rules, found)


def _write(
    events: list[pl.DataFrame], items: list[pl.DataFrame], users: list[pl.DataFrame], out_dir: Path, rules: TableRules,
    found: ImportFindings,
) -> Imported:  # fmt: skip
    interactions, catalogue = pl.concat(events), pl.concat(items).unique("item_id", keep="first", maintain_order=True)
    known = interactions.join(catalogue.select("item_id"), on="item_id", how="semi", maintain_order="left")
    if len(known) < len(interactions):
        found.notes.append(f"{len(interactions) - len(known):,} events of items that no file has are dropped")
    if known.is_empty():
        raise DataError("no event is left; see the notes: " + "; ".join(found.notes))
    user_table = pl.concat(users).unique("user_id", keep="first", maintain_order=True) if users else None
    tables = make_tables(known, catalogue, user_table, rules=rules)
    write_tables(tables, out_dir)
    return Imported(tables, tuple(found.notes))


def _assign(files: Sequence[Path], mapping: Mapping) -> dict[str, list[Path]]:
    """Which section takes which file."""
    users = mapping.users.files if mapping.users else ()
    patterns = {"items": mapping.items.files, "users": users, "events": mapping.events.files or ("*",)}
    taken: dict[str, list[Path]] = {name: [] for name in patterns}
    for path in files:
        fits = [name for name, wanted in patterns.items() if any(fnmatch(path.name, one) for one in wanted)]
        section = fits[0] if fits else ""
        if not section:
            raise ConfigError(f"{path}: its name fits no `files` of the mapping ({', '.join(mapping.events.files)}, …)")
        taken[section].append(path)
    for name, wanted in patterns.items():
        if wanted and not taken[name]:
            raise ConfigError(f"no file for [{name}]: its `files` are {', '.join(wanted)}")
    return taken


def _open(
    path: Path, form: FormatSection, columns: dict[str, str], section: str, found: ImportFindings
) -> ForeignTable | None:
    try:
        return ForeignTable(path, read_text(path, form), columns, section, found)
    except Unreadable as error:
        found.faults += error.faults
        return None


def _named(columns: object) -> dict[str, str]:
    """Our name → theirs, of what a section of the mapping names."""
    return {name: value for name, value in vars(columns).items() if isinstance(value, str)}


def _item_columns(mapping: Mapping) -> dict[str, str]:
    columns = _named(mapping.items.columns)
    if not mapping.items.files:
        columns.setdefault("item_id", mapping.events.columns.item_id)
    return columns


def _events(table: ForeignTable, section: EventsSection, form: FormatSection, rules: TableRules) -> pl.DataFrame:
    """The canonical interactions of one file, the good ones; what is wrong goes to the table's findings."""
    notes, name = table.found.notes, table.path.name
    columns: dict[str, pl.Series] = {}
    for ours in ("user_id", "item_id", "session_id", "event_id"):
        columns[ours], floats = ids(table.text(ours))
        if floats:
            notes.append(f"{name}: {table.columns[ours]!r} is written like 17850.0; read as 17850")
    for ours in ("surface", "device", "country"):
        columns[ours] = table.text(ours).str.strip_chars()
    kinds = _types(table, section)
    money = {}
    for ours in ("quantity", "price", "value"):
        money[ours], bad, reason = numbers(table.text(ours), form)
        table.judge(bad & (kinds != IGNORE), table.text(ours), reason)
    value = money["value"] if "value" in table else money["price"] * money["quantity"].fill_null(1.0)
    negative = ((value < 0) | (money["quantity"] < 0)).fill_null(False) & kinds.is_in(_WITH_VALUE)
    kinds = kinds.set(negative, EventType.RETURN.name.lower() if section.negative == "return" else IGNORE)
    nothing = (money["quantity"] == 0).fill_null(False) & kinds.is_in(_WITH_VALUE)
    kinds = kinds.set(nothing, IGNORE)
    guests = columns["user_id"].is_null()
    if section.guests == "session":
        columns["user_id"] = columns["user_id"].fill_null(columns["session_id"])
    nobody = columns["user_id"].is_null()
    moments, bad, reason = times_ms(table.text("time"), form)
    wanted = (kinds != IGNORE) & ~nobody
    table.judge(bad & wanted, table.text("time"), reason)
    table.judge(table.text("time").is_null() & wanted, table.text("time"), "a value is required")
    if form.zone == "UTC" and bool((without_zone(table.text("time"), form) & wanted).any()):
        notes.append(f"{name}: times that name no zone are taken as UTC; format.zone says otherwise")
    frame = pl.DataFrame(
        {
            "row": range(table.frame.height),
            **{ours: columns[ours] for ours in ("user_id", "item_id")},
            "event_type": kinds,
            "timestamp_ms": moments,
            "value": value.abs().zip_with(kinds.is_in(_WITH_VALUE), value.clear(len(value))),
            **{ours: columns[ours] for ours in ("surface", "device", "country", "session_id", "event_id")},
        },
        schema_overrides={"row": pl.Int64},
    ).filter(wanted & ~table.bad)
    judged = inspect(frame.select(list(INTERACTIONS.polars)), INTERACTIONS, str(table.path), rules)
    table.adopt((fault for fault in judged.faults if fault.examples), frame["row"])
    table.found.bad_rows += int(table.bad.sum()) + int(judged.bad.sum())
    for count, what in (
        (int((negative & wanted).sum()), "lines below zero are returns"),
        (int((negative & ~wanted & ~nobody).sum()), "lines below zero are left out"),
        (int(nothing.sum()), "lines of quantity 0 are left out"),
        (int((guests & ~nobody & (kinds != IGNORE)).sum()), "lines of guests: the session is taken as the user"),
        (int((nobody & (kinds != IGNORE)).sum()), "lines without a user are left out"),
        (int(((kinds == IGNORE) & ~nothing & ~negative).sum()), "lines are of ignored types"),
    ):
        if count:
            notes.append(f"{name}: {count:,} {what}")
    return judged.frame.filter(~judged.bad)


def _types(table: ForeignTable, section: EventsSection) -> pl.Series:
    """text (n,): our types, and IGNORE for what the mapping ignores or does not know (which is a fault)."""
    if "event_type" not in table:
        return pl.Series("event_type", [section.type], pl.String).new_from_index(0, table.frame.height) if (
            table.frame.height
        ) else pl.Series("event_type", [], pl.String)  # fmt: skip
    written = table.text("event_type").str.strip_chars()
    known = {name: name for name in _TYPES} | section.types
    kinds = written.replace_strict(list(known), list(known.values()), default=None, return_dtype=pl.String)
    names = ", ".join(section.types) or ", ".join(_TYPES)
    table.judge(kinds.is_null(), table.text("event_type"), f"no type for it in [events.types], which has {names}")
    return kinds.fill_null(IGNORE)


def _users(table: ForeignTable, rules: TableRules) -> pl.DataFrame:
    columns = {ours: table.text(ours).str.strip_chars() for ours in USERS.polars}
    columns["user_id"], _ = ids(table.text("user_id"))
    frame = pl.DataFrame(columns)
    judged = inspect(frame, USERS, str(table.path), rules)
    table.adopt((fault for fault in judged.faults if fault.examples), pl.Series(range(frame.height)))
    table.found.bad_rows += int(judged.bad.sum())
    return judged.frame.filter(~judged.bad)
