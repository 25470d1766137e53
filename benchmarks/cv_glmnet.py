"""Runs R's cv.glmnet on a matrix of ours and reads what it found."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Glmnet:
    """cv.glmnet's path: `lambdas`, `mean`, `error`, `genes` (L,); `coefficients` (L, 1 + genes), intercept first.

    `largest` is the lambda it would start from by itself, `chosen` its lambda.min and lambda.1se.
    """

    largest: float

    lambdas: np.ndarray
    mean: np.ndarray
    error: np.ndarray
    genes: np.ndarray
    coefficients: np.ndarray
    chosen: np.ndarray
    seconds: np.ndarray
    version: str


def run_glmnet(
    X: np.ndarray,
    y: np.ndarray,
    folds: np.ndarray,
    lambdas: np.ndarray,
    folder: Path,
    *,
    family: str = "binomial",
    measure: str = "deviance",
    thresh: float = 1e-7,
    repeats: int = 1,
    prefix: tuple[str, ...] = (),
) -> Glmnet:
    """cv.glmnet with the folds (numbered from 0) and the falling lambdas given, on one thread.

    `thresh` is its convergence threshold, 1e-7 by default; `prefix` goes before the command, such as /usr/bin/time.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.savetxt(folder / "shape.txt", X.shape, fmt="%d")
    np.asfortranarray(X, dtype=np.float64).ravel(order="F").tofile(folder / "X.bin")
    np.savetxt(folder / "y.txt", y, fmt="%d")
    np.savetxt(folder / "folds.txt", np.asarray(folds) + 1, fmt="%d")
    np.savetxt(folder / "lambdas.txt", lambdas, fmt="%.17g")
    script = Path(__file__).with_name("glmnet.R")
    command = ["Rscript", "--vanilla", script, folder.resolve(), family, measure, thresh, repeats]
    subprocess.run([*prefix, *map(str, command)], check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    lambdas, mean, error, genes = np.loadtxt(folder / "cv.txt", ndmin=2).T
    return Glmnet(
        float(np.loadtxt(folder / "largest.txt")), lambdas, mean, error, genes.astype(int),
        np.fromfile(folder / "coef.bin").reshape(len(lambdas), -1),
        np.loadtxt(folder / "chosen.txt"), np.loadtxt(folder / "seconds.txt", ndmin=1),
        (folder / "version.txt").read_text().strip(),
    )  # fmt: skip
