"""A gRPC personalization engine."""

import os

from engine.former_names import install

# ONNX Runtime reports to its maker unless this is said before it is loaded; what a shop serves is nobody else's matter.
# Whoever wants it sets the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

install()
