"""What the simulated cohorts share: independent random streams, class sizes and planted effects."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np


def stream(kind: str, part: str, seed: int) -> np.random.RandomState:
    """An independent stream for each part of a simulation, so that one part's size never shifts another's draws."""
    return np.random.RandomState(zlib.crc32(f"{kind}/{part}/{seed}".encode()))


def shares_to_counts(counts: Mapping[object, int], n: int) -> np.ndarray:
    """Class sizes that add up to `n` in the proportions of `counts` (largest remainder)."""
    exact = np.array(list(counts.values())) * n / sum(counts.values())
    sizes = np.floor(exact).astype(int)
    sizes[np.argsort(sizes - exact, kind="stable")[: n - sizes.sum()]] += 1
    return sizes


def planted(rng: np.random.RandomState, genes: int, share: float, median: float) -> np.ndarray:
    """Log2 effects of one programme: `share` of the genes, either sign, log-normal in size around `median`."""
    effects = np.zeros(genes)
    chosen = rng.permutation(genes)[: max(1, int(round(share * genes)))]
    sizes = median * np.exp(0.5 * rng.standard_normal(chosen.size))
    effects[chosen] = sizes * np.where(rng.random_sample(chosen.size) < 0.5, -1.0, 1.0)
    return effects
