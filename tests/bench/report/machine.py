"""On what the hand-written files were measured."""

MACHINE = {
    "processor": "Some Processor",
    "cores": 2,
    "memory_gib": 8.0,
    "python": "3.11.7",
    "libraries": {"numpy": "2.0"},
    "commit": "0123456789abcdef",
    "date": "2026-01-02T03:04:05+00:00",
}
