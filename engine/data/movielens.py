"""Import MovieLens files (the ml-latest-small layout: ratings, movies and, optionally, tags)."""

from pathlib import Path

import polars as pl

from engine.data.source import Imported, find_source, read_source
from engine.data.tables import make_tables, write_tables

_TAGS_PER_MOVIE = 10
_NO_GENRES = "(no genres listed)"
_YEAR = r"\((\d{4})\)\s*$"


def import_movielens(source_dir: Path, out_dir: Path) -> Imported:
    """Convert a MovieLens directory (*.csv or *.csv.gz) and write the canonical tables to `out_dir`.

    Every rating, high or low, becomes a click with the rating as its value: choosing to watch and rate a film is the
    signal. Every film of `movies` becomes an item, rated or not; the year leaves its title for `published_ms`.
    There is no users table: MovieLens knows nothing of its users.

    Raises:
        DataError: a file or column is missing, or a value cannot be used.
    """
    ratings = read_source(source_dir, "ratings", ("userId", "movieId", "rating", "timestamp"))
    movies = read_source(source_dir, "movies", ("movieId", "title", "genres"))
    tags = read_source(source_dir, "tags", ("movieId", "tag")) if find_source(source_dir, "tags") else None
    tables = make_tables(_interactions(ratings), _items(movies, tags))
    write_tables(tables, out_dir)
    return Imported(tables)


def _interactions(ratings: pl.DataFrame) -> pl.DataFrame:
    return ratings.select(
        user_id="userId",
        item_id="movieId",
        event_type=pl.lit("click"),
        # Appending digits keeps the text as it is: a malformed timestamp is then reported with its row.
        timestamp_ms=pl.col("timestamp") + "000",
        value="rating",
    )


def _items(movies: pl.DataFrame, tags: pl.DataFrame | None) -> pl.DataFrame:
    year = pl.col("title").str.extract(_YEAR).cast(pl.Int32)
    genres = pl.when(pl.col("genres") != _NO_GENRES).then(pl.col("genres"))
    decade = pl.format("decade:{}s", year // 10 * 10)
    joined = movies.with_columns(tags=pl.lit(None, pl.String))
    if tags is not None:
        joined = movies.join(_frequent_tags(tags), on="movieId", how="left", maintain_order="left")
    return joined.select(
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
        .filter(pl.col("tag").str.len_bytes() > 0)
        .group_by("movieId", "tag")
        .len()
        .sort("movieId", "len", "tag", descending=[False, True, False])
        .group_by("movieId", maintain_order=True)
        .agg(tags=pl.col("tag").head(_TAGS_PER_MOVIE).str.join("|"))
    )
