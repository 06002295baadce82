"""One page from the JSON files of all benches: read, choose, draw, render."""
