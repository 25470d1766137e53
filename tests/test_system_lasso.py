"""Our LASSO beside R's glmnet, run live on a cohort that is not the one of the kept reference numbers."""

import shutil
import subprocess

import numpy as np
import pytest
from cv_glmnet import run_glmnet

from gexlib.models.lasso import cross_validate

pytestmark = pytest.mark.system


@pytest.fixture(scope="module", autouse=True)
def glmnet():
    if shutil.which("Rscript") is None:
        pytest.skip("Rscript is not installed on this machine")
    if subprocess.run(["Rscript", "--vanilla", "-e", "library(glmnet)"], capture_output=True).returncode:
        pytest.skip("R's package glmnet is not installed on this machine")


def cohort(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """200 samples x 1,500 genes in thirty modules on unlike scales, a third cases; ten folds."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((200, 1500)) + rng.standard_normal((200, 30))[:, np.arange(1500) % 30]
    risk = X[:, :12].sum(axis=1) + 4 * rng.standard_normal(200)
    X = X * np.exp(rng.standard_normal(1500)) + 12 * rng.random_sample(1500)
    return X, (risk > np.quantile(risk, 0.67)).astype(int), rng.permutation(np.arange(200) % 10)


# Of a fold's held-out samples two that nearly tie may change places, which moves the mean AUC by about 1e-3; glmnet's
# own does so from one threshold to the next.
@pytest.mark.parametrize("measure, gap", [("deviance", 1e-3), ("auc", 3e-3)])
def test_paths_and_choices_are_those_of_glmnet_run_here(measure, gap, tmp_path):
    X, y, folds = cohort(seed=11)
    everyone = np.ones((1, len(y)), bool)
    (found,) = cross_validate(X, y, everyone, folds[None], measure=measure)
    r = run_glmnet(X, y, folds, found.path.lambdas, tmp_path, measure=measure, thresh=1e-14)
    assert found.path.lambdas[0] == pytest.approx(r.largest, rel=1e-6)
    for at in range(9, 100, 10):
        theirs = r.coefficients[at, 1:]
        assert np.abs(found.path.coefficients[at].toarray()[0] - theirs).max() < 1e-3 * np.abs(theirs).max()
    assert set(found.genes()) == set(np.flatnonzero(r.coefficients[found.best, 1:]))
    assert found.mean == pytest.approx(r.mean, abs=gap)
    assert [found.lambda_min, found.lambda_1se] == pytest.approx(r.chosen, rel=1e-6)
