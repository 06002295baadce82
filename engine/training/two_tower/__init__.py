"""Two towers in one space: items from content and id, users from the order of their events (PyTorch)."""
