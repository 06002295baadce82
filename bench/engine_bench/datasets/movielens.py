"""Import MovieLens files (the ml-latest-small layout: ratings, movies and, optionally, tags)."""

from pathlib import Path

import polars as pl

from engine.contract.limits import MAX_ATTRIBUTE_BYTES
from engine.data.schema import Column, TableSchema
from engine.data.tables import Imported, make_tables, write_tables
from engine_bench.datasets.source import read_source

_S_2100 = 4_102_444_800
_RATINGS = TableSchema(
    "ratings",
    (
        Column("userId", pl.String, required=True),
        Column("movieId", pl.String, required=True),
        Column("rating", pl.Float64, required=True),
        Column("timestamp", pl.Int64, required=True, minimum=0, maximum=_S_2100, hint="seconds since 1970 are wanted"),
    ),
)
_MOVIES = TableSchema(
    "movies",
    (
        Column("movieId", pl.String, required=True, unique=True),
        Column("title", pl.String, required=True),
        Column("genres", pl.String),
    ),
)
_TAGS = TableSchema("tags", (Column("movieId", pl.String, required=True), Column("tag", pl.String)), may_be_absent=True)
_TAGS_PER_MOVIE = 10
_NO_GENRES = "(no genres listed)"
_YEAR = r"\((\d{4})\)\s*$"


def import_movielens(source_dir: Path, out_dir: Path) -> Imported:
    """Convert a MovieLens directory (*.csv or *.csv.gz) and write the canonical tables to `out_dir`.

    Every rating, high or low, becomes a click: choosing to watch and rate a film is the signal. Every film of `movies`
    becomes an item, rated or not; the year leaves its title for `published_ms`. Tags longer than an attribute may be
    are left out. There is no users table: MovieLens knows nothing of its users.

    Raises:
        DataError: a file or column is missing, or a value cannot be used; names file, column and row.
    """
    ratings = read_source(source_dir, _RATINGS)
    movies = read_source(source_dir, _MOVIES)
    tags = read_source(source_dir, _TAGS)
    tables = make_tables(
        _interactions(ratings.frame),
        _items(movies.frame, tags.frame),
        sources={"interactions": ratings.path, "items": movies.path},
    )
    write_tables(tables, out_dir)
    return Imported(tables)


def _interactions(ratings: pl.DataFrame) -> pl.DataFrame:
    return ratings.select(
        user_id="userId",
        item_id="movieId",
        event_type=pl.lit("click"),
        timestamp_ms=pl.col("timestamp") * 1000,
    )


def _items(movies: pl.DataFrame, tags: pl.DataFrame) -> pl.DataFrame:
    year = pl.col("title").str.extract(_YEAR).cast(pl.Int32)
    genres = pl.when(pl.col("genres") != _NO_GENRES).then(pl.col("genres"))
    decade = pl.format("decade:{}s", year // 10 * 10)
    return movies.join(_frequent_tags(tags), on="movieId", how="left", maintain_order="left").select(
        item_id="movieId",
        title=pl.col("title").str.replace(_YEAR, "").str.strip_chars(),
        category=genres.str.split("|").list.first(),
        published_ms=pl.datetime(year, 1, 1).dt.epoch("ms"),
        attributes=pl.concat_str(genres, decade, "tags", separator="|", ignore_nulls=True),
    )


def _frequent_tags(tags: pl.DataFrame) -> pl.DataFrame:
    """movieId and tags: each film's most frequent tags, lower-case, most frequent first, ties in alphabetical order."""
    normalised = pl.col("tag").str.to_lowercase().str.replace_all("|", " ", literal=True).str.strip_chars()
    return (
        tags.select("movieId", tag=normalised)
        .filter((pl.col("tag") != "") & (pl.col("tag").str.len_bytes() <= MAX_ATTRIBUTE_BYTES))
        .group_by("movieId", "tag")
        .len()
        .sort("movieId", "len", "tag", descending=[False, True, False])
        .group_by("movieId", maintain_order=True)
        .agg(tags=pl.col("tag").head(_TAGS_PER_MOVIE).str.join("|"))
    )
