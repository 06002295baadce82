"""Nothing reports to anybody."""

import subprocess
import sys
from pathlib import Path

SCRIPT = "import os, engine.adapters.onnx.ranker; print(os.environ['ORT_DISABLE_TELEMETRY'])"


def test_onnx_runtime_takes_no_notes_for_its_maker(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    said = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout == "1\n"
    # Left alone, it begins with an identifier and a database of events in the cache of the home directory.
    assert not list(tmp_path.rglob("*onnxruntime*"))
