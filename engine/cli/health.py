"""`engine health`: does a server take requests? For the health checks of containers, and for scripts that wait."""

import sys
from typing import Annotated

import typer

from engine.cli.options import ConfigOption, load_config
from engine.errors import ConfigError, EngineError
from engine.rpc.port import address_of

# What listens on all addresses is asked on this one.
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}


def health(
    config: ConfigOption = None,
    address: Annotated[
        str | None, typer.Option(help="host:port of the server; by default the one that the settings start here.")
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(min=0.01, max=3600, help="How long the server may take to say that it serves.")
    ] = 2.0,
) -> None:
    """Exit with 0 once the server says SERVING, with 1 and a line that says so where it does not in time."""
    # Not for the settings alone, and a quarter of a second.
    from engine_client import RecommendationClient

    if address is None:
        server = load_config(config).server
        if server.port == 0:
            raise ConfigError("server.port is 0, which any port may be; say which with --address")
        address = address_of(_ANY_ADDRESS.get(server.host, server.host), server.port)
    try:
        with RecommendationClient(address) as client:
            client.wait_until_serving(timeout_s)
    except EngineError as error:
        print(f"engine: {error}", file=sys.stderr)
        # Not the 2 of settings that cannot work: to Docker that status is reserved.
        raise typer.Exit(1) from None
    print(f"{address} is serving")
