"""What an experiment was worth and how sure that is, from the archive; needs the `analysis` extra."""
