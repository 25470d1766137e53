"""Simulated cohorts with the truth known: the genes that carry the signal are planted and recorded.

`simulate(kind, n, genes, seed)` draws from `numpy.random.RandomState`, whose stream numpy has promised never to
change, and rounds to two decimals as public matrices are, so one seed gives one cohort on every machine. The biology
(which genes, how strong) depends on the seed and on the number of genes alone: a larger `n` adds patients to the same
disease. Gene names are plainly synthetic (SIM00001).
"""

from __future__ import annotations

from functools import partial

import anndata

from gexlib.cohort import CohortError
from gexlib.sources.simulated.neuroblastoma import simulate_neuroblastoma
from gexlib.sources.simulated.pancancer import simulate_pancancer
from gexlib.sources.simulated.radiogenomics import simulate_radiogenomics
from gexlib.sources.simulated.sites import simulate_sites
from gexlib.sources.simulated.vital import CANCERS, simulate_vital
from gexlib.words import nearest

DEFAULT_SIZES = {  # samples, genes
    "neuroblastoma": (280, 1000),
    "pancancer": (1000, 1000),
    "sites": (1000, 1000),
    "radiogenomics": (528, 1000),
} | dict.fromkeys(CANCERS, (300, 1000))
SMALLEST = {"neuroblastoma": 20, "pancancer": 400, "sites": 600, "radiogenomics": 200} | dict.fromkeys(CANCERS, 60)
SAMPLES = dict.fromkeys(DEFAULT_SIZES, "aliquots") | {"neuroblastoma": "patients", "radiogenomics": "patients"}
KINDS = {
    "neuroblastoma": simulate_neuroblastoma,
    "pancancer": simulate_pancancer,
    "sites": simulate_sites,
    "radiogenomics": simulate_radiogenomics,
}
KINDS |= {kind: partial(simulate_vital, kind) for kind in CANCERS}


def load(name: str, samples: str | None = None) -> anndata.AnnData:
    """Open ``simulated:KIND`` or ``simulated:KIND,n=500,genes=13091,seed=3``.

    `n` counts samples: patients of neuroblastoma and radiogenomics, else aliquots, of which some share a patient. The
    published shapes are n=280,genes=13091 of neuroblastoma, n=11057,genes=7091 of pancancer, n=528,genes=12042 of
    radiogenomics, n=1212,genes=20021 of vital, n=326,genes=19467 of vital_coad and n=1020,genes=20144 of vital_kipan.

    Raises
    ------
    CohortError : unknown kind or setting, a value that is no whole number, or a samples table is given
    """
    if samples:
        raise CohortError(f"{name}: a simulated cohort brings its own samples table; leave samples out.")
    kind, *settings = name.removeprefix("simulated:").split(",")
    numbers = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in ("n", "genes", "seed") or not value.isdigit():
            raise CohortError(f"{name}: cannot read '{setting}'; expected n=, genes= or seed= with a whole number.")
        numbers[key] = int(value)
    cohort = simulate(kind, **numbers)
    cohort.uns["cohort"] = name
    return cohort


def simulate(kind: str, n: int | None = None, genes: int | None = None, seed: int = 1) -> anndata.AnnData:
    """A simulated cohort of `n` samples x `genes` genes, the same for the same arguments everywhere.

    Raises
    ------
    CohortError : unknown kind, or a size too small to hold every class and every planted programme
    """
    if kind not in DEFAULT_SIZES:
        raise CohortError(f"simulated:{kind}: no such simulated cohort ({nearest(kind, DEFAULT_SIZES)}).")
    default_n, default_genes = DEFAULT_SIZES[kind]
    n, genes = n or default_n, genes or default_genes
    if n < SMALLEST[kind] or genes < 100:
        raise CohortError(
            f"simulated:{kind}: n={n}, genes={genes}; expected at least {SMALLEST[kind]} {SAMPLES[kind]} and 100 genes."
        )
    return KINDS[kind](n, genes, seed)
