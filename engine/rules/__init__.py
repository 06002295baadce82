"""Business rules: what may be shown where, and what goes before what."""
