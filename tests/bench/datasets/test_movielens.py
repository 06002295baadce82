"""MovieLens files into canonical tables: on three hand-written films, and on the real ones."""

import gzip
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.data.build import load_dataset
from engine.data.tables import read_tables
from engine.errors import DataError
from engine_bench.datasets.movielens import import_movielens

RATINGS = "userId,movieId,rating,timestamp\n1,20,4.0,1000000000\n1,10,0.5,999999999\n2,20,5.0,1000000001\n"
MOVIES = (
    "movieId,title,genres\n"
    '10,"Metropolis, The (1927)",Drama|Sci-Fi\n'
    "20,Heat (Director's Segment) (1995) ,Action\n"
    "30,Untitled,(no genres listed)\n"
)
TAGS = (
    "userId,movieId,tag,timestamp\n1,20,Crime,1\n2,20,crime ,2\n3,20,a|b,3\n4,20,zebra,4\n"
    + "".join(f"5,10,tag{number:02},5\n" for number in range(15))
    + "5,10,tag14,6\n"
)


def write_source(directory: Path, compressed: bool = False, **files: str | None) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in ({"ratings": RATINGS, "movies": MOVIES, "tags": TAGS} | files).items():
        if text is None:
            continue
        if compressed:
            (directory / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (directory / f"{name}.csv").write_text(text)
    return directory


def year_ms(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000


@pytest.mark.parametrize("compressed", [False, True])
def test_films_and_ratings(tmp_path: Path, compressed: bool) -> None:
    import_movielens(write_source(tmp_path / "in", compressed), tmp_path / "out")
    tables = read_tables(tmp_path / "out")
    assert tables.items.select("item_id", "title", "category", "published_ms").rows() == [
        ("10", "Metropolis, The", "Drama", year_ms(1927)),
        ("20", "Heat (Director's Segment)", "Action", year_ms(1995)),
        ("30", "Untitled", None, None),
    ]
    assert tables.interactions.select("user_id", "item_id", "event_type", "timestamp_ms", "value").rows() == [
        ("1", "20", "click", 1_000_000_000_000, None),
        ("1", "10", "click", 999_999_999_000, None),
        ("2", "20", "click", 1_000_000_001_000, None),
    ]
    assert tables.users.height == 0


def test_attributes_are_genres_decade_and_the_most_frequent_tags(tmp_path: Path) -> None:
    import_movielens(write_source(tmp_path / "in"), tmp_path / "out")
    attributes = read_tables(tmp_path / "out").items["attributes"].to_list()
    nine = "|".join(f"tag{number:02}" for number in range(9))
    assert attributes == [
        f"Drama|Sci-Fi|decade:1920s|tag14|{nine}",
        "Action|decade:1990s|crime|a b|zebra",
        None,
    ]


def test_tags_are_optional(tmp_path: Path) -> None:
    imported = import_movielens(write_source(tmp_path / "in", tags=None), tmp_path / "out")
    assert imported.tables.items["attributes"].to_list() == ["Drama|Sci-Fi|decade:1920s", "Action|decade:1990s", None]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ratings", None, "neither ratings.csv nor ratings.csv.gz is there"),
        ("ratings", "", "ratings.csv: the file is empty"),
        ("ratings", RATINGS.splitlines()[0] + "\n", "ratings.csv: the table has no rows"),
        ("ratings", RATINGS.replace("rating,", "stars,", 1), "ratings.csv: required column 'rating' is missing"),
        ("ratings", RATINGS + "3,10,good,5\n", "ratings.csv: column 'rating', row 4: not a number, found 'good'"),
        (
            "ratings",
            RATINGS + "3,10,1,now\n",
            "ratings.csv: column 'timestamp', row 4: not a whole number, found 'now'",
        ),
        ("ratings", RATINGS + "3,77,1,1000000000\n", "ratings.csv: column 'item_id', row 4: no such item in "),
        ("movies", MOVIES + "10,Twice,Drama\n", "movies.csv: column 'movieId', row 4: appears a second time"),
        ("movies", MOVIES + "11,,Drama\n", "movies.csv: column 'title', row 4: a value is required"),
    ],
)
def test_bad_file_is_named(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    source = write_source(tmp_path / "in", **{name: text})
    with pytest.raises(DataError) as caught:
        import_movielens(source, tmp_path / "out")
    assert message in str(caught.value)
    assert str(source) in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none: no such directory"):
        import_movielens(tmp_path / "none", tmp_path / "out")


@pytest.mark.shared_data
def test_the_real_files(shared_data: Path, tmp_path: Path) -> None:
    import_movielens(shared_data / "ml-latest-small", tmp_path)
    dataset = load_dataset(tmp_path)
    assert (len(dataset.interactions), dataset.item_count, dataset.user_count) == (100_836, 9_742, 610)
    assert dataset.histories().lengths().min() >= 20
    toy_story = dataset.items.row(0, named=True)
    assert (toy_story["title"], toy_story["category"], toy_story["published_ms"]) == (
        "Toy Story", "Adventure", year_ms(1995),
    )  # fmt: skip
    assert dataset.items["published_ms"].null_count() < 20
    assert dataset.items["attributes"].str.split("|").list.len().max() <= 10 + 1 + 10
