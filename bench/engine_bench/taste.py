"""Are slates about their users' taste? Of data, or of the demonstration's world, trained and served by default."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.app.model import train_bundle
from engine.bundle.bundle import open_bundle
from engine.bundle.store import BundleStore
from engine.config.serving import EngineConfig
from engine.data.build import load_dataset
from engine.logs import Progress
from engine.training.config import TrainingConfig
from engine_bench.demo.world import World
from engine_bench.synthetic.tables import synthesize
from engine_bench.taste_figures import TasteFigures, measure_taste, worst


def run_taste(
    data: Path | None,
    seeds: Sequence[int],
    training: TrainingConfig,
    serving: EngineConfig,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train once a seed and ask for slates.

    Args:
        data: canonical tables; none: a world of the demonstration's size for each seed.

    Returns:
        "seeds": by seed a list of TasteFigures as dictionaries; "lowest_main_share" and "highest_most_shared" over all.

    Cost: a training run a seed.
    """
    by_seed: dict[int, list[TasteFigures]] = {}
    for seed in seeds:
        with tempfile.TemporaryDirectory(prefix="engine-taste-") as scratch:
            home = Path(scratch)

            def report(done: int, total: int, message: str, seed: int = seed) -> None:
                if progress is not None:
                    progress(done, total, f"seed {seed}: {message}")

            if data is None:
                synthesize(home / "data", World().size, seed=seed)
            dataset = load_dataset(data or home / "data")
            config = training.model_copy(update={"seed": seed})
            path = train_bundle(dataset, config, BundleStore(home / "bundles"), report)
            by_seed[seed] = measure_taste(open_bundle(path), dataset, serving, home, report)
    lowest, highest = worst([one for figures in by_seed.values() for one in figures])
    return {
        "seeds": {str(seed): [asdict(one) for one in figures] for seed, figures in by_seed.items()},
        "lowest_main_share": lowest,
        "highest_most_shared": highest,
    }
