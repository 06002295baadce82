"""A holdout on one surface: most users get the engine, some what is popular, and every answer says which."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Unpack

from rich.console import Console
from rich.table import Table

from engine.data.dataset import Dataset
from engine_bench.demo.patient import PatientClient
from engine_bench.demo.tastes import Tastes
from engine_client import RequestFields
from engine_client.v1 import recommendation_pb2 as pb

# Other than the surface of the demonstration's other steps, which are about the engine.
SURFACE = "email"
SHARE = 0.2
ASKED = 100
SHOWN = 5
_SETTINGS = """
[holdout]
share = {share}
surfaces = ["{surface}"]

[processor]
archive_directory = {events}
archive_flush_s = 0.5
"""


def declare_holdout(config_file: Path, archive: Path) -> None:
    """Add the holdout to settings that have none, and an archive of what it leads to."""
    with config_file.open("a") as file:
        file.write(_SETTINGS.format(share=SHARE, surface=SURFACE, events=json.dumps(str(archive / "events"))))


def show_experiments(
    client: PatientClient, dataset: Dataset, tastes: Tastes, user_id: str, console: Console
) -> dict[str, Any]:
    """Count who is held out, and print one user's slate beside the baseline, which they ask for as a tester would."""
    known: Sequence[str] = dataset.users["user_id"].to_list()[:ASKED]
    counts = Counter(_variant(_recommend(client, one, item_count=1)) for one in known)
    console.print(
        f"Of {len(known)} users on {SURFACE}, {counts['baseline']} are held out ({SHARE:.0%} of all shall be)"
    )
    slates = {
        variant: _recommend(client, user_id, item_count=SHOWN, experiment_overrides={"holdout": variant})
        for variant in ("engine", "baseline")
    }
    table = Table(title=f"{user_id} on {SURFACE}", title_justify="left")
    for variant in slates:
        table.add_column(f"holdout: {variant}", width=48, no_wrap=True)
    for row in zip(*(slate.items for slate in slates.values()), strict=True):
        table.add_row(*(f"{tastes.title(item.item_id)} ({tastes.category(item.item_id)})" for item in row))
    console.print(table)
    return {
        "asked": len(known),
        "held_out": counts["baseline"],
        "slates": {variant: [item.item_id for item in slate.items] for variant, slate in slates.items()},
        "surface": SURFACE,
        "shown": {
            variant: [
                {"title": tastes.title(item.item_id), "category": tastes.category(item.item_id)} for item in slate.items
            ]
            for variant, slate in slates.items()
        },
    }


def _recommend(client: PatientClient, user_id: str, **fields: Unpack[RequestFields]) -> pb.RecommendResponse:
    return client.recommend(user_id, SURFACE, **fields)


def _variant(response: pb.RecommendResponse) -> str:
    return next(one.variant for one in response.experiments if one.experiment == "holdout")
