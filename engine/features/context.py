"""The request's half of the ranker's input, the same in training and in serving."""

from datetime import UTC, datetime

import numpy as np

from engine.features.schema import CODE_FEATURES, FeatureSchema
from engine.types import Demographics, Float32Array, Int64Array

MS_PER_DAY = 86_400_000.0
MS_PER_MINUTE = 60_000


class ContextEncoder:
    """Turns a request's circumstances into codes and dense features by a bundle's schema.

    Built once a bundle. Values outside a vocabulary get code 0. Cost: a few dictionary look-ups a request.
    """

    def __init__(self, schema: FeatureSchema) -> None:
        self._epoch_ms = schema.epoch_ms
        self._codes = {
            name: {value: position + 1 for position, value in enumerate(values)}
            for name, values in schema.vocabularies.items()
        }

    def codes(self, demographics: Demographics, device: str, country: str, surface: str, time_ms: int) -> Int64Array:
        """int64 (len(CODE_FEATURES),): one code a categorical feature."""
        moment = datetime.fromtimestamp(time_ms / 1000.0, UTC)
        values = {
            "age_group": demographics.age_group,
            "location": demographics.location,
            "signup_source": demographics.signup_source,
            "device": device,
            "country": country,
            "surface": surface,
        }
        out = np.zeros(len(CODE_FEATURES), np.int64)
        for position, name in enumerate(CODE_FEATURES):
            if name == "hour":
                out[position] = moment.hour + 1
            elif name == "weekday":
                out[position] = moment.weekday() + 1
            else:
                out[position] = self._codes.get(name, {}).get(values[name], 0)
        return out

    def dense(self, profile: Float32Array, time_ms: int, session: Float32Array) -> Float32Array:
        """float32 (dense_dim,): the user's profile, then CONTEXT_DENSE, which ends in the session's SESSION_DENSE.

        Time counts in whole minutes: a request that is repeated at once gets the same answer.
        """
        minute_ms = time_ms - time_ms % MS_PER_MINUTE
        now_days = np.float32((minute_ms - self._epoch_ms) / MS_PER_DAY)
        return np.concatenate([profile, [now_days], session]).astype(np.float32)
