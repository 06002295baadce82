"""The living catalogue: what has changed since the bundle was written, in what is being served."""
