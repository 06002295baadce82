"""`python -m engine` is the `engine` command."""

from engine.cli.main import run

if __name__ == "__main__":
    run()
