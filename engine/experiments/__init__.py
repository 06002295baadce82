"""Experiments: who gets which variant, what was shown to whom, and what it was worth."""
