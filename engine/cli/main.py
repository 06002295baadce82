"""The `engine` command: one file a subcommand, one line and exit code 2 for whatever a user can put right."""

import logging
import sys

import typer

from engine.cli import bundles, data, experiment, import_data, rules, topics
from engine.cli.evaluate import evaluate
from engine.cli.health import health
from engine.cli.installed import add_installed_commands
from engine.cli.needs import extra_of
from engine.cli.process import process
from engine.cli.publish import publish_users
from engine.cli.serve import serve
from engine.cli.train import train
from engine.errors import EngineError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
app.add_typer(import_data.app, name="import", help="Turn an export or a public data set into a data directory.")
app.add_typer(data.app, name="data", help="Look at a data directory before a training run does.")
app.add_typer(topics.app, name="topics", help="Make the Kafka topics.")
app.add_typer(rules.app, name="rules", help="Look at business rules before a server does.")
app.add_typer(bundles.app, name="bundles", help="See, bring in and choose bundles.")
app.add_typer(experiment.app, name="experiment", help="Say what experiments are worth.")
app.command()(train)
app.command("publish-users")(publish_users)
app.command()(serve)
app.command()(health)
app.command()(process)
app.command()(evaluate)
add_installed_commands(app, {"import": import_data.app})


def run() -> None:
    """Entry point of the console script."""
    # The libraries' own reports of normal work would drown the engine's.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("engine").setLevel(logging.INFO)
    try:
        app()
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except ModuleNotFoundError as error:
        extra = extra_of(error.name or "")
        if extra is None:
            raise
        print(f"engine: {error.name} is not installed: pip install 'personalization-engine[{extra}]'", file=sys.stderr)
        raise SystemExit(2) from None
