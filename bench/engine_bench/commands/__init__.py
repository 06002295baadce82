"""Commands that measure or show the engine, found by `engine` through entry points."""
