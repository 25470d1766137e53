"""Run R's glmnet on a small cohort and keep its numbers in tests/glmnet_reference.json.

`python tests/make_glmnet_reference.py`, where R and its package glmnet are installed. Its convergence threshold is
1e-16: at the default of 1e-7 glmnet's own coefficients are off by up to 1e-2 of the largest at the dense end.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from cv_glmnet import run_glmnet  # noqa: E402

from gexlib.files import write_json  # noqa: E402

REFERENCE = Path(__file__).with_name("glmnet_reference.json")
KEPT = (10, 30, 60, 99)  # places along the path whose coefficients are kept
STUDIES = (("binomial", "deviance"), ("binomial", "auc"), ("gaussian", "mse"))


def small_cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """150 samples x 400 genes, correlated and on unlike scales, about a third cases; ten folds. The same everywhere."""
    rng = np.random.RandomState(7)
    X = rng.standard_normal((150, 400)) + rng.standard_normal((150, 20))[:, np.arange(400) % 20]
    y = (X[:, :8].sum(axis=1) + 2 * rng.standard_normal(150) > 3).astype(int)
    X = (X * np.exp(rng.standard_normal(400)) + 10 * rng.random_sample(400)).round(3)
    return X, y, rng.permutation(np.arange(150) % 10)


def main() -> None:
    X, y, folds = small_cohort()
    found = {}
    for family, measure in STUDIES:
        scaled = (X - X.mean(axis=0)) / X.std(axis=0)
        lambdas = np.abs(scaled.T @ (y - y.mean())).max() / len(y) * 0.01 ** (np.arange(100) / 99)
        with tempfile.TemporaryDirectory() as folder:
            r = run_glmnet(X, y, folds, lambdas, Path(folder), family=family, measure=measure, thresh=1e-16)
        found[f"{family} {measure}"] = {
            "glmnet": r.version, "largest": r.largest, "lambdas": r.lambdas.tolist(), "mean": r.mean.tolist(),
            "error": r.error.tolist(), "chosen": r.chosen.tolist(),
            "coefficients": {str(at): r.coefficients[at].tolist() for at in KEPT},
        }  # fmt: skip
    write_json(REFERENCE, found)


if __name__ == "__main__":
    main()
