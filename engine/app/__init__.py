"""The composition root: the only package that chooses which adapter implements which Protocol."""
