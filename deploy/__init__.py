"""What an operator runs the engine with; `deploy.rehearse` builds and runs an image where there is no Docker."""
