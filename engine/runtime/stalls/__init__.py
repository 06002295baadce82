"""What keeps a serving process from stalling, and what sees it when it does."""
