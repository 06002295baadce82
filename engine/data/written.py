"""Columns of text as a user or a shop system wrote them: numbers, times and ids."""

import re

import polars as pl

from engine.data.mapping import FormatSection

_MS_FROM = 100_000_000_000  # in seconds the year 5138, in milliseconds 1973
_ISO_FORMATS = ("%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M")
_ZONE = r"(Z|z|[+-]\d{2}(?::?\d{2})?)$"
# Signs of currencies, and blanks of every width.
_DECORATION = r"[€$£¥\s\x{a0}\x{202f}]"


def numbers(written: pl.Series, form: FormatSection) -> tuple[pl.Series, pl.Series, str]:
    """Float64 (n,) of text (n,); bool (n,), where it is no number; and what is said of those.

    A number is written in one way only, so that 1.234 is never read as 1234 or the other way round.
    """
    decimal, thousands = re.escape(form.decimal), re.escape(form.thousands)
    whole = rf"(?:\d{{1,3}}(?:{thousands}\d{{3}})+|\d+)" if form.thousands.strip() else r"\d+"
    bare = written.str.replace_all(_DECORATION, "")
    good = bare.str.contains(rf"^[+-]?{whole}(?:{decimal}\d*)?(?:[eE][+-]?\d+)?$")
    if form.thousands.strip():
        bare = bare.str.replace_all(form.thousands, "", literal=True)
    if form.decimal == ",":
        bare = bare.str.replace(",", ".", literal=True)
    values = bare.cast(pl.Float64, strict=False)
    marks = f"decimal {form.decimal!r}" + (f", thousands {form.thousands!r}" if form.thousands else "")
    return values, bare.is_not_null() & ~good.fill_null(False), f"not a number as [format] has them ({marks})"


def times_ms(written: pl.Series, form: FormatSection) -> tuple[pl.Series, pl.Series, str]:
    """Int64 (n,), milliseconds since 1970, of text (n,); bool (n,), where it is no time; and what is said of those."""
    if form.time in ("auto", "seconds", "milliseconds"):
        counted = written.str.strip_chars().str.replace(r"\.0+$", "").cast(pl.Int64, strict=False)
        if form.time != "auto" or counted.null_count() == written.null_count() < len(written):
            in_ms = counted if form.time == "milliseconds" else counted * 1000
            if form.time == "auto":
                frame = pl.DataFrame({"counted": counted, "in_ms": in_ms})
                ms = pl.when(pl.col("counted").abs() < _MS_FROM).then("in_ms").otherwise("counted")
                in_ms = frame.select(ms).to_series()
            unit = "seconds or milliseconds" if form.time == "auto" else form.time
            return in_ms, written.is_not_null() & in_ms.is_null(), f"not {unit} since 1970"
    if form.time in ("auto", "iso8601"):
        values, reason = _iso(written, form.zone), "not a time as ISO 8601 has it, such as 2026-11-30T08:15:00+01:00"
    else:
        values, reason = _by_format(written, form.time, form.zone), f"not a time like {form.time}"
    return values, written.is_not_null() & values.is_null(), reason


def without_zone(written: pl.Series, form: FormatSection) -> pl.Series:
    """bool (n,): the times that name no zone of their own, and so are in that of the mapping."""
    if form.time in ("auto", "iso8601"):
        return written.str.contains("-") & ~written.str.strip_chars().str.contains(r"[T ].*" + _ZONE)
    zoned = form.time in ("seconds", "milliseconds") or "%z" in form.time
    return written.is_not_null() & (not zoned)


def ids(written: pl.Series) -> tuple[pl.Series, bool]:
    """Ids without blanks around them, and without the .0 that spreadsheets add to whole numbers, where all have one."""
    bare = written.str.strip_chars()
    filled = bare.drop_nulls()
    floats = len(filled) > 0 and bool(filled.str.contains(r"^\d+\.0$").all())
    bare = bare.str.replace(r"\.0$", "") if floats else bare
    return bare.set(bare == "", None), floats


def clean(written: pl.Series, max_bytes: int) -> tuple[pl.Series, int]:
    """Text on one line and not longer than max_bytes of UTF-8, and how many were longer."""
    bare = written.str.replace_all(r"[\p{Cc}\s]+", " ").str.strip_chars()
    long = (bare.str.len_bytes() > max_bytes).fill_null(False)
    if long.any():
        cut = [None if text is None else cut_text(text, max_bytes) for text in bare]
        bare = pl.Series(written.name, cut, pl.String)
    return bare.set(bare == "", None), int(long.sum())


def cut_text(text: str, max_bytes: int) -> str:
    """The beginning of a text, no character cut in two."""
    return text.encode()[:max_bytes].decode(errors="ignore")


def _iso(written: pl.Series, zone: str) -> pl.Series:
    text = written.str.strip_chars().str.replace(r"^(\d{4}-\d{2}-\d{2})[ t]", "${1}T")
    offset = text.str.extract(r"T.*?" + _ZONE)
    local = text.str.replace(r"(T.*?)\s*" + _ZONE, "${1}")
    parsed = [local.str.to_datetime(form, time_unit="ms", strict=False) for form in _ISO_FORMATS]
    parsed.append(local.str.to_date("%Y-%m-%d", strict=False).cast(pl.Datetime("ms")))
    naive = pl.DataFrame({f"t{place}": one for place, one in enumerate(parsed)}).select(pl.coalesce(pl.all()))
    hours = offset.str.extract(r"([+-]\d{2})").cast(pl.Int64)
    minutes = offset.str.extract(r"[+-]\d{2}:?(\d{2})").cast(pl.Int64).fill_null(0)
    minutes = minutes * offset.str.starts_with("-").replace_strict({True: -1, False: 1}, return_dtype=pl.Int64)
    shift = (hours.fill_null(0) * 60 + minutes.fill_null(0)) * 60_000
    moments = naive.to_series()
    utc = moments.cast(pl.Int64) - shift
    return utc.zip_with(offset.is_not_null(), _in_zone(moments, zone)).rename(written.name)


def _by_format(written: pl.Series, form: str, zone: str) -> pl.Series:
    text = written.str.strip_chars()
    if "%z" in form:
        return text.str.to_datetime(form, time_unit="ms", time_zone="UTC", strict=False).dt.epoch("ms")
    if any(part in form for part in ("%H", "%I", "%T", "%R", "%s", "%X", "%c")):
        return _in_zone(text.str.to_datetime(form, time_unit="ms", strict=False), zone)
    return _in_zone(text.str.to_date(form, strict=False).cast(pl.Datetime("ms")), zone)


def _in_zone(naive: pl.Series, zone: str) -> pl.Series:
    """Milliseconds since 1970 of local times; of one that the change of clocks doubles the earlier moment."""
    placed = naive.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("ms")
    if placed.null_count() == naive.null_count():
        return placed
    # In spring an hour does not exist: clocks that were not put forward were an hour slow.
    later = naive.dt.offset_by("1h").dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null")
    return placed.zip_with(placed.is_not_null(), later.dt.epoch("ms"))
