"""Time the LASSO of notebook 05 against R's cv.glmnet, side by side, and say how far their numbers are apart.

    python benchmarks/lasso_glmnet.py [--quick] [--parts weak dense mirna protocol]

Each comparison is one path of 100 lambdas with ten inner folds, eleven fits. Both solve the same lambdas with the same
folds, glmnet on one thread at its default threshold and without its own ways to end a path early; it is timed inside R,
so neither its start nor the reading of the matrix counts. Ours is compiled before it is timed, reads float64, and
finds its lambdas by itself. "Ended early" stops a path 15 lambdas past the best one, which is less work than glmnet
does here: the choice of lambda is the same, the dense end of the path is missing.

weak      1,212 simulated samples x 20,021 genes, the paper's shape, few and small effects
dense     the same shape, effects so strong that lambda_min keeps hundreds of genes, as in the paper (285)
mirna     TCGA breast cancer, 626 miRNA, vital status: more samples than genes; needs GEXLIB_REAL_DATA (data/README.md)
protocol  the paper's 20 x 10 outer folds with ten inner folds in each, on the weak cohort: 200 fits by ours ended
          early, 20 with full paths and five by cv.glmnet, whose times for 200 are extrapolated
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numba
import numpy as np
import psutil
from cv_glmnet import Glmnet, run_glmnet
from sklearn.model_selection import RepeatedStratifiedKFold

from gexlib import load_cohort
from gexlib.models.lasso import CrossValidated, cross_validate, inner_fold_numbers
from gexlib.sources.real import prepared

PARTS = ("weak", "dense", "mirna", "protocol")
VARIANTS = {
    "ours, one thread": {"threads": 1},
    "ours, two threads": {"threads": 2},
    "ours, one thread, ended early": {"threads": 1, "end_early": True},
    "ours, two threads, ended early": {"threads": 2, "end_early": True},
}
GLMNET = "cv.glmnet, one thread"
TIGHT = 1e-12  # glmnet's convergence threshold where its own error shall hardly count
FULL_FITS = 20  # of the protocol's 200, where ours does not end early
PROTOCOL_FITS = range(0, 200, 40)  # those that cv.glmnet does too


def simulated(informative: int, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X (1212, 20021) like log2 expression, y with 16.4 % cases, sample numbers: 200 modules, ten broad factors."""
    n, genes, modules = 1212, 20021, 200
    rng = np.random.RandomState(1)
    level, spread = 14 * rng.random_sample(genes), np.clip(0.9 * np.exp(0.5 * rng.standard_normal(genes)), 0.15, 3)
    share = np.where(rng.random_sample(genes) < 0.6, 0.1 + 0.6 * rng.random_sample(genes), 0)
    module = rng.randint(0, modules, genes)
    Z = rng.standard_normal((n, 10)) @ (0.2 * rng.standard_normal((10, genes)))
    Z += np.sqrt(share) * rng.standard_normal((n, modules))[:, module]
    Z += np.sqrt(1 - share) * rng.standard_normal((n, genes))
    effects = np.zeros(genes)
    effects[rng.permutation(genes)[:informative]] = size * rng.standard_normal(informative)
    risk = Z @ effects + rng.logistic(size=n)
    y = (risk > np.quantile(risk, 1 - 0.164)).astype(int)
    return np.clip(level + spread * Z, 0, None).round(4), y, np.arange(n)


def mirna() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """BRCA in real:tcga_mirna_pancan, death, patients; of identical miRNA only one, so that the solution is unique."""
    cohort = load_cohort("real:tcga_mirna_pancan")
    cohort = cohort[(cohort.obs["cohort"] == "BRCA") & cohort.obs["vital_any"].notna()]
    X, patients = np.asarray(cohort.X, dtype=float), cohort.obs["patient"].to_numpy()
    X = X[:, np.sort(np.unique(X, axis=1, return_index=True)[1])]
    return X[:, np.ptp(X, axis=0) > 0], (cohort.obs["vital_any"] == "dead").to_numpy(int), patients


def cohort_of(part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """X float64, y, and whose samples they are."""
    return {"weak": lambda: simulated(100, 0.2), "dense": lambda: simulated(200, 1.5), "mirna": mirna}[part]()


def ours(X, y, folds, **options) -> tuple[float, CrossValidated]:
    """Seconds, and the path of all samples with its cross-validation."""
    start = time.perf_counter()
    (found,) = cross_validate(X, y, np.ones((1, len(y)), bool), folds[None], **options)
    return time.perf_counter() - start, found


def compile_all(X, y, folds) -> None:
    """Have numba compile everything, on some of the genes (still more than samples, where there are more)."""
    ours(X[:, : len(y) + 100], y, folds, lambdas=np.geomspace(0.1, 0.02, 12))


def timed(X, y, folds, repeats: tuple[int, int], folder: Path) -> tuple[dict, CrossValidated, Glmnet]:
    """Seconds of every repeat by name, our full path, and glmnet's; the programs take turns."""
    compile_all(X, y, folds)
    seconds = {name: [] for name in (GLMNET, *VARIANTS)}
    for turn in range(max(repeats)):
        if turn < repeats[0]:
            for name, options in VARIANTS.items():
                taken, found = ours(X, y, folds, **options)
                seconds[name].append(taken)
                if not options.get("end_early"):
                    full = found
        if turn < repeats[1]:
            theirs = run_glmnet(X, y, folds, full.path.lambdas, folder)
            seconds[GLMNET] += theirs.seconds.tolist()
    return seconds, full, theirs


def status(field: str) -> float:
    """A size from /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def extra_memory(path: Path, y, folds) -> tuple[float, float]:
    """Peak of one cross-validation above what the process held just before it, and the matrix, both in MiB."""
    X = np.load(path)
    compile_all(X, y, folds)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = status("VmRSS")
    with warnings.catch_warnings(action="ignore"):
        ours(X, y, folds)
    return status("VmHWM") - before, X.nbytes / 2**20


class Neighbours:
    """How many cores other programs kept busy between its making and `cores`; more than a little spoils the timings."""

    def __init__(self):
        self.start, self.others = time.perf_counter(), self._others()

    def _others(self) -> float:
        everyone = psutil.cpu_times()
        return everyone.user + everyone.system + getattr(everyone, "nice", 0) - sum(os.times()[:4])

    def cores(self) -> str:
        used = max(0, self._others() - self.others) / (time.perf_counter() - self.start)
        return f"other programs kept {used:.2f} of {os.cpu_count()} cores busy meanwhile"


def print_memory(X, y, folds, folder: Path) -> None:
    """In a fresh process for each type, so that nothing of ours or glmnet's is counted with it."""
    if not Path("/proc/self/clear_refs").exists():
        return print("  memory: skipped, since only Linux tells the peak of a part of a run")
    for dtype in (np.float64, np.float32):
        np.save(folder / "X.npy", X.astype(dtype))
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            extra, own = pool.submit(extra_memory, folder / "X.npy", y, folds).result()
        print(
            f"  memory, X in {dtype.__name__}: peak {extra:.0f} MiB above X, {extra / own:.2f} times X ({own:.0f} MiB)"
        )


def print_seconds(seconds: dict[str, list[float]]) -> None:
    print(f"  {'seconds':32}{'min':>8}{'median':>8}  times as fast as cv.glmnet (medians)")
    peer = np.median(seconds[GLMNET])
    for name, taken in seconds.items():
        middle = np.median(taken)
        print(f"  {name:32}{min(taken):8.2f}{middle:8.2f}  {peer / middle:6.1f}   ({len(taken)} runs)")


def print_gaps(found: CrossValidated, theirs: Glmnet, thresh: float) -> None:
    """How far our path and its cross-validation are from glmnet's."""
    mine, beta = found.path.coefficients.toarray(), theirs.coefficients[:, 1:]
    largest = np.abs(beta).max(axis=1)
    gaps = np.abs(mine - beta).max(axis=1)[1:] / largest[1:]  # at lambda_max all are zero, but for rounding
    worst, best = 1 + gaps.argmax(), found.best
    differ = ((mine[best] != 0) != (beta[best] != 0)).sum()
    print(f"  against glmnet at thresh {thresh:g}, where it takes {np.median(theirs.seconds):.1f} s:")
    print(f"    lambda_max differs by {abs(found.path.lambdas[0] / theirs.largest - 1):.1e} of it")
    print(
        f"    coefficients, as a share of the largest: {np.abs(mine[best] - beta[best]).max() / largest[best]:.1e} at "
        f"lambda_min, {gaps.max():.1e} at worst (lambda {worst + 1} of {len(mine)})"
    )
    kept = (mine[best] != 0).sum(), (beta[best] != 0).sum()
    print(f"    genes at lambda_min: ours {kept[0]}, of glmnet {kept[1]}; {differ} differ")
    print(f"    lambda_min is {agrees(found.lambda_min, theirs.chosen[0])}", end=", ")
    print(f"lambda_1se is {agrees(found.lambda_1se, theirs.chosen[1])}")
    print(
        f"    cross-validated deviance by {np.abs(found.mean - theirs.mean).max():.1e}, "
        f"its standard error by {np.abs(found.error - theirs.error).max():.1e}",
        flush=True,
    )


def agrees(mine: float, theirs: float) -> str:
    return "the same" if abs(mine / theirs - 1) < 1e-6 else f"not the same ({mine:.5f}, of glmnet {theirs:.5f})"


def compare(part: str, quick: bool) -> None:
    """One cohort: seconds, memory, and gaps at glmnet's default and at a tight threshold."""
    X, y, groups = cohort_of(part)
    print(f"\n{part}: {X.shape[0]:,} samples x {X.shape[1]:,} genes, {y.mean():.1%} cases", flush=True)
    folds = inner_fold_numbers(y, groups, 10, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            neighbours = Neighbours()
            seconds, found, theirs = timed(X, y, folds, (1, 1) if quick else (3, 2), folder)
        print_seconds(seconds)
        print(f"  {neighbours.cores()}")
        if caught:
            print(f"  ours warned {len(caught)} times, first: {caught[0].message}")
        print_gaps(found, theirs, 1e-7)
        if not quick:
            print_memory(X, y, folds, folder)
            print_gaps(found, run_glmnet(X, y, folds, found.path.lambdas, folder, thresh=TIGHT), TIGHT)


def outer_sets(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Training masks and the inner folds in each, both (200, samples): 20 x 10 outer folds, ten inner ones."""
    masks, inner = np.zeros((200, len(y)), bool), np.full((200, len(y)), -1)
    outer = RepeatedStratifiedKFold(n_splits=10, n_repeats=20, random_state=0)
    for i, (train, _) in enumerate(outer.split(y, y)):
        masks[i, train], inner[i, train] = True, inner_fold_numbers(y[train], train, 10, seed=i)
    return masks, inner


def protocol() -> None:
    """200 fits by ours against five by cv.glmnet on the same training sets, at the lambdas of each."""
    X, y, _ = cohort_of("weak")
    masks, inner = outer_sets(y)
    compile_all(X, y, np.maximum(inner[0], 0))
    print("\nprotocol: 20 x 10 outer folds, ten inner folds in each, weak cohort, one run of each", flush=True)
    neighbours = Neighbours()
    early, found = protocol_seconds(X, y, masks, inner, end_early=True)
    print(f"  {'ours, two threads, ended early':32}{early:8.1f} s for 200 fits", flush=True)
    some, _ = protocol_seconds(X, y, masks[:FULL_FITS], inner[:FULL_FITS])
    full = some * len(masks) / FULL_FITS
    print(f"  {'ours, two threads, full paths':32}{full:8.1f} s, extrapolated from {FULL_FITS} fits in {some:.1f} s")
    peer = [glmnet_fit(X[masks[i]], y[masks[i]], inner[i, masks[i]], found[i]) for i in PROTOCOL_FITS]
    seconds, agreed, differ = np.array(peer).T
    theirs = len(masks) * seconds.mean()
    print(f"  {GLMNET:32}{theirs:8.1f} s, extrapolated from fits of {', '.join(f'{s:.1f}' for s in seconds)} s")
    print(f"  ours is {theirs / early:.1f} times as fast ended early, {theirs / full:.1f} times with full paths")
    print(f"  {neighbours.cores()}")
    print(f"  the same lambda_min in {agreed.sum():.0f} of {len(peer)}; {differ.sum():.0f} genes differ there in all")


def protocol_seconds(X, y, masks, inner, **options) -> tuple[float, list[CrossValidated]]:
    """Seconds, and every fit."""
    start = time.perf_counter()
    found = cross_validate(X, y, masks, inner, threads=2, **options)
    return time.perf_counter() - start, found


def glmnet_fit(X, y, folds, found: CrossValidated) -> tuple[float, bool, int]:
    """Seconds of cv.glmnet on one training set; whether its lambda_min is ours; genes that differ there."""
    lambdas = found.path.lambdas[0] * 0.01 ** (np.arange(100) / 99)  # all of them, where ours ended early
    with tempfile.TemporaryDirectory() as folder:
        r = run_glmnet(X, y, folds, lambdas, Path(folder))
    differ = set(found.genes()) ^ set(np.flatnonzero(r.coefficients[found.best, 1:]))
    return r.seconds[0], agrees(found.lambda_min, r.chosen[0]) == "the same", len(differ)


def print_machine() -> None:
    """Versions, processor and how busy it is."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    print(f"{model}, {os.cpu_count()} cores; load {os.getloadavg()[0]:.1f} before the start")
    print(f"Python {platform.python_version()}, numpy {np.__version__}, numba {numba.__version__}; {glmnet_version()}")
    print(
        "Note: the glmnet of Debian and Ubuntu (r-cran-glmnet) is a generic build, compiled for baseline x86-64 "
        "without AVX; one compiled for this processor may be faster.",
        flush=True,
    )


def glmnet_version() -> str:
    """R's and glmnet's version and where it is installed; ends the script where there is none."""
    code = "cat(R.version.string, 'glmnet', format(packageVersion('glmnet')), 'in', find.package('glmnet'))"
    found = None
    if shutil.which("Rscript"):
        found = subprocess.run(["Rscript", "--vanilla", "-e", code], capture_output=True, text=True)
    if found is None or found.returncode:
        raise SystemExit("R or its package glmnet is not installed; on Debian: apt-get install r-cran-glmnet.")
    return found.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="everything once, no memory, no tight threshold")
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="all, or with --quick the weak cohort")
    options = parser.parse_args()
    print_machine()
    for part in options.parts or (PARTS[:1] if options.quick else PARTS):
        if part == "protocol":
            protocol()
        elif part == "mirna" and "tcga_mirna_pancan" not in prepared():
            print("\nmirna: skipped, GEXLIB_REAL_DATA is not set or holds no tcga_mirna_pancan.h5ad")
        else:
            compare(part, options.quick)


if __name__ == "__main__":
    main()
