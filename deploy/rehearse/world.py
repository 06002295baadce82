"""What a rehearsed engine serves: a small world, and the bundle trained on it, made outside of what is rehearsed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_TRAINING = """\
[als]
dim = 16
iterations = 5
[two_tower]
dim = 16
window = 20
layers = 1
epochs = 2
negatives = 100
[ranker]
epochs = 2
hidden = [32, 16]
cross_rank = 8
max_examples = 500
"""


@dataclass(frozen=True, slots=True)
class World:
    """A small data directory, and the bundle that was trained on it."""

    data: Path
    bundles: Path

    @staticmethod
    def make(directory: Path) -> "World":
        """Synthesize and train here, outside the image, which cannot train; once, then kept."""
        world = World(directory / "data", directory / "bundles")
        if not (world.bundles / "current").exists():
            settings = directory / "training.toml"
            directory.mkdir(parents=True, exist_ok=True)
            settings.write_text(_TRAINING)
            for arguments in (
                ["synth", str(world.data), "--items", "600", "--users", "150"],
                ["train", str(world.data), "--out", str(world.bundles), "--config", str(settings)],
            ):
                subprocess.run([sys.executable, "-m", "engine", *arguments], check=True, stdout=subprocess.DEVNULL)
        return world
