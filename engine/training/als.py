"""Implicit-feedback matrix factorization by alternating least squares."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import threadpoolctl
from implicit.cpu.als import AlternatingLeastSquares

from engine.data.dataset import Dataset
from engine.errors import DataError
from engine.features.fold_in import fold_in
from engine.features.history import Histories, HistoryStates
from engine.logs import Progress
from engine.training.config import AlsConfig
from engine.types import Float32Array, Int64Array

# Events of one user on one item that add to its confidence.
_MOST_A_PAIR = 10.0


@dataclass(frozen=True, slots=True)
class AlsModel:
    """Item vectors, with what is needed to fold users in."""

    item_vectors: Float32Array
    alpha: float
    regularization: float

    def user_vectors(self, histories: Histories, states: HistoryStates, demographic_codes: Int64Array) -> Float32Array:
        """The exact least-squares vector of each state; demographics are not used. See fold_in."""
        return fold_in(self.item_vectors, histories, states, self.alpha, self.regularization)


def train_als(
    dataset: Dataset, config: AlsConfig, seed: int, threads: int = 0, progress: Progress | None = None
) -> AlsModel:
    """Factorize the (user, item) matrix of positive events.

    An item's confidence is alpha times the number of a user's positive events on it, so that a view that became a
    purchase counts for more than a view; each user and item without events gets a zero vector.

    Args:
        dataset: whose interactions are all for training.
        config: dim, iterations, regularization, alpha.
        seed: of the initial factors; the same seed, data and thread count give the same model.
        threads: for the solver, 0 for all cores.
        progress: called after each iteration.

    Returns:
        The model; item_vectors float32 (items, dim).

    Raises:
        DataError: no positive event.

    Cost: O(iterations * (events * dim + (users + items) * dim^2)).
    Source: Hu, Koren & Volinsky, ICDM 2008; solver of Takács, Pilászy & Tikk, RecSys 2011.
    """
    events = dataset.interactions.positive()
    if len(events) == 0:
        raise DataError("training needs at least one view, click, cart or purchase; the data has none")
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(events), np.float32), (events.users, events.rows)), (dataset.user_count, dataset.item_count)
    )
    counts.sum_duplicates()
    # Confidence grows with what a user does with an item, but one who never stops must not own the item's vector.
    np.minimum(counts.data, _MOST_A_PAIR, out=counts.data)

    def report(iteration: int, elapsed_s: float, loss: float | None) -> None:
        if progress is not None:
            progress(iteration + 1, config.iterations, "matrix factorization")

    # The solver runs its own threads; BLAS threads inside them would fight over the cores (implicit warns of it).
    with threadpoolctl.threadpool_limits(1, "blas"):
        solver = AlternatingLeastSquares(
            factors=config.dim,
            iterations=config.iterations,
            regularization=config.regularization,
            alpha=config.alpha,
            num_threads=threads,
            random_state=seed,
        )
        solver.fit(counts, show_progress=False, callback=report)
    return AlsModel(np.ascontiguousarray(solver.item_factors, np.float32), config.alpha, config.regularization)
