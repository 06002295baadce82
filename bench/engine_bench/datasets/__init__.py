"""Public data sets, turned into canonical tables."""
