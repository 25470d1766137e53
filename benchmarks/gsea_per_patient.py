"""Time pre-ranked GSEA of every patient, as notebook 04 needs it: ours against a loop of gseapy.prerank.

    python benchmarks/gsea_per_patient.py [--patients 175] [--permutations 1000] [--peer-patients 3] [--workers N]

Random scores like saliencies, none negative, 175 patients x 12,042 genes as in Smedley et al. 2020. First 50 random
sets of the hallmarks' sizes; then, where GEXLIB_REAL_DATA is set (data/README.md), the 3,297 sets of MSigDB's c2.cgp
on genes of theirs. Ours is `genesets.gsea_per_patient`, on one thread and on all, compiled before it is timed. The
peers are one call a patient in one process and on one thread: gseapy's permutations, as many as ours, and its
"multilevel" method, a port of fgsea's, where the installed version has it. They run on the first patients, and on every
tenth set of c2.cgp, and their time is scaled up by patients and sets. The scores of both are compared.
"""

from __future__ import annotations

import argparse
import inspect
import os
import time

import gseapy
import numpy as np
import pandas as pd

from gexlib.genesets import gsea_per_patient, read_gmt

GENES = 12_042
OUR_SHARE = 5  # c2.cgp: ours runs on one patient in so many, and its time is scaled up


def seconds(work) -> tuple[float, pd.DataFrame]:
    start = time.perf_counter()
    found = work()
    return time.perf_counter() - start, found


def peer(scores: pd.DataFrame, sets: dict, permutations: int, method: str) -> pd.DataFrame:
    """Enrichment scores of a loop over the patients, patients x sets."""
    more = {} if method == "permutation" else {"method": method}
    options = {"min_size": 15, "max_size": 500, "permutation_num": permutations, "threads": 1, "no_plot": True, **more}
    found = {
        name: gseapy.prerank(row, sets, **options).res2d.set_index("Term")["ES"] for name, row in scores.iterrows()
    }
    return pd.DataFrame(found).T.astype(float)


def compare(name: str, scores: pd.DataFrame, sets: dict, fewer: dict, ours: pd.DataFrame, chosen: argparse.Namespace):
    """Ours on `ours` of the patients, the peers on the first patients and `fewer` of the sets."""
    few, times = scores.iloc[: chosen.peer_patients], {}
    for workers in sorted({1, chosen.workers}):
        spent, table = seconds(
            lambda workers=workers: gsea_per_patient(
                ours, ours.columns, sets, permutations=chosen.permutations, workers=workers
            )
        )
        times[workers] = spent * len(scores) / len(ours)
        print(f"{name}, {len(scores)} patients, {chosen.permutations:,} permutations: ours on {workers} thread"
              f"{'s' * (workers > 1)} {times[workers]:.1f} s", flush=True)  # fmt: skip
    es = table.pivot(index="patient", columns="set", values="es")
    methods = ["permutation"] + ["multilevel"] * ("method" in inspect.signature(gseapy.prerank).parameters)
    for method in methods:
        spent, theirs = seconds(lambda method=method: peer(few, fewer, chosen.permutations, method))
        spent *= len(scores) / len(few) * es.shape[1] / theirs.shape[1]
        apart = (theirs - es.loc[theirs.index, theirs.columns]).abs().max(axis=None)
        print(f"  gseapy, {method}, scaled from {len(few)} patients x {theirs.shape[1]} sets: {spent:.0f} s; ours "
              + ", ".join(f"{spent / ours:.0f} x as fast on {workers}" for workers, ours in times.items())
              + f"; scores at most {apart:.0e} apart", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patients", type=int, default=175)
    parser.add_argument("--permutations", type=int, default=1000)
    parser.add_argument("--peer-patients", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    chosen = parser.parse_args()
    rng = np.random.default_rng(0)
    patients = [f"P{number}" for number in range(chosen.patients)]
    scores = pd.DataFrame(rng.exponential(size=(chosen.patients, GENES)), patients, [f"G{i}" for i in range(GENES)])
    sizes = rng.integers(32, 201, 50)
    sets = {f"S{k}": list(rng.choice(scores.columns, size, replace=False)) for k, size in enumerate(sizes)}
    as_sets = {name: frozenset(genes) for name, genes in sets.items()}
    gsea_per_patient(scores.iloc[:1], scores.columns, as_sets, permutations=2)
    compare("50 sets", scores, as_sets, sets, scores, chosen)
    if not os.environ.get("GEXLIB_REAL_DATA"):
        print("c2.cgp: GEXLIB_REAL_DATA is not set; left out")
        return
    as_sets = read_gmt("real:c2.cgp.v7.1")
    scores.columns = rng.permutation(sorted(frozenset().union(*as_sets.values())))[:GENES]
    fewer = {name: sorted(genes) for name, genes in list(as_sets.items())[::10]}
    chosen.peer_patients = 1
    compare("c2.cgp", scores, as_sets, fewer, scores.iloc[: -(-chosen.patients // OUR_SHARE)], chosen)


if __name__ == "__main__":
    main()
