"""Several front ends before one device process: what they ask of it, through shared memory (docs/adr/0013)."""
