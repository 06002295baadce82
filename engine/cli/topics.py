"""`engine topics`: the Kafka topics that the engine needs."""

from typing import Annotated

import typer

from engine.cli.options import ConfigOption, load_config

app = typer.Typer(no_args_is_help=True)


@app.callback()
def topics() -> None:
    """A group, so that the command keeps its name while it is the only one."""


@app.command()
def create(
    config: ConfigOption = None,
    replication_factor: Annotated[
        int, typer.Option(min=-1, help="Replicas of each partition; -1: the brokers' default.")
    ] = -1,
) -> None:
    """Make the topics that are missing, with the declared partitions and retention; those that are there stay."""
    from engine.app.topics import create_missing_topics
    from engine.stream.topics import TOPICS

    settings = load_config(config)
    made = create_missing_topics(settings, replication_factor)
    for topic in TOPICS:
        state = "created" if topic in made else "was there"
        print(f"{settings.kafka.named(topic.name)}: {topic.partitions} partitions, {state}")
