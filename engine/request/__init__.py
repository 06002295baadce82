"""One request, from the query to the slate."""
