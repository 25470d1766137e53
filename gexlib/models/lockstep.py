"""Many L1-penalised regressions on one matrix, solved in lock-step: the engine behind `gexlib.models.lasso`.

All training sets advance along their paths together. One product of the genes with the residuals of every set at
several lambdas tests the optimality (KKT) conditions of all genes, and reads the matrix from memory once for all of
them. It runs in float32 on genes standardised over the whole matrix; whatever comes near the threshold is decided again
in float64.

Within a set only genes are solved for that are active, or that the last two gradients say will be: by Newton steps on
the exact float64 gradient, each found by coordinate descent on a Gram matrix that is kept from lambda to lambda. An old
or rounded Gram matrix makes a step shorter or longer, never the solution different. Means and standard deviations of a
training set enter algebraically; the matrix is never copied per set.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numba
import numpy as np
from scipy import sparse

BLOCK = 5  # values of lambda between two passes over the whole matrix
TOLERANCE = 3e-5  # of the optimality conditions, relative to lambda
MARGIN = 1e-3  # relative to lambda: what float32 finds this near the threshold is decided in float64

_compiled = numba.njit(fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True, cache=True)


@dataclass(frozen=True)
class Path:
    """The path of one training set: `lambdas` (L,), `intercepts` (L,), `coefficients` (L, genes) on the scale of X."""

    lambdas: np.ndarray
    intercepts: np.ndarray
    coefficients: sparse.csr_matrix

    def linear_predictor(self, X: np.ndarray, at: int | slice = slice(None)) -> np.ndarray:
        """(samples, L), or (samples,) for one number `at` along the path."""
        chosen = self.coefficients[at]
        genes = np.unique(chosen.indices)
        found = np.asarray(X[:, genes], dtype=float) @ chosen[:, genes].toarray().T + self.intercepts[at]
        return found[:, 0] if isinstance(at, (int, np.integer)) else found


@_compiled
def _dot(a, b):
    total = 0.0
    for i in range(a.size):
        total += a[i] * b[i]
    return total


@_compiled
def _add(factor, a, out):
    for i in range(a.size):
        out[i] += factor * a[i]


@_compiled
def _model(A, rows, gamma, intercept, y, weight, logistic, eta, residual, curvature):
    """Linear predictor, weighted residual and curvature of every sample; returns the loss."""
    eta[:] = intercept
    for k in range(rows.size):
        if gamma[k] != 0.0:
            _add(gamma[k], A[rows[k]], eta)
    loss = 0.0
    for i in range(y.size):
        if logistic:
            e = np.exp(-abs(eta[i]))
            p = 1 / (1 + e) if eta[i] >= 0 else e / (1 + e)
            loss += weight[i] * (np.log1p(e) + max(eta[i], 0.0) - y[i] * eta[i])
            residual[i] = weight[i] * (y[i] - p)
            curvature[i] = weight[i] * max(p * (1 - p), 1e-10)
        else:
            loss += 0.5 * weight[i] * (y[i] - eta[i]) ** 2
            residual[i] = weight[i] * (y[i] - eta[i])
            curvature[i] = weight[i]
    return loss


@_compiled
def _gram(A, rows, known, curvature, H, c):
    """Rows from `known` on of the Gram matrix H, weighted and centred (the intercept eliminated), and of c = A w."""
    a, n, total = rows.size, curvature.size, curvature.sum()
    new = np.empty((a - known, n), H.dtype)
    for k in range(known, a):
        row, c[k] = A[rows[k]], 0.0
        for i in range(n):
            v = row[i] * curvature[i]
            new[k - known, i] = v
            c[k] += v
    chunk = np.empty((64, n), H.dtype)
    for start in range(0, a, 64):
        stop, first = min(start + 64, a), max(start, known)
        for k in range(start, stop):
            row = A[rows[k]]
            for i in range(n):
                chunk[k - start, i] = row[i]
        G = np.dot(chunk[: stop - start], new[first - known :].T)
        for k in range(start, stop):
            for j in range(first, a):
                H[k, j] = G[k - start, j - first] - c[k] * c[j] / total
        for j in range(first, a):
            for k in range(start, stop):
                H[j, k] = H[k, j]


@_compiled
def _move(H, gradient, value, k, change, ridge):
    """Change one coefficient, and with it the gradient of the quadratic model."""
    value[k] += change
    row = H[k]
    for j in range(value.size):
        gradient[j] -= change * row[j]
    gradient[k] -= ridge[k] * change


@_compiled
def _leap(H, gradient, value, penalty, ridge):
    """Move all coefficients in use towards the minimum for their signs, until there or until one of them is zero."""
    used = np.flatnonzero(value)
    a = used.size
    curved, pull = np.empty((a, a)), np.empty(a)
    for i in range(a):
        for j in range(a):
            curved[i, j] = H[used[i], used[j]]
        curved[i, i] += ridge[used[i]] + 1e-9 * curved[i, i]
        pull[i] = gradient[used[i]] - penalty[used[i]] * np.sign(value[used[i]])
    change = np.linalg.solve(curved, pull)
    step, first = 1.0, -1
    for i in range(a):
        if change[i] * value[used[i]] < 0 and step * abs(change[i]) >= abs(value[used[i]]):
            step, first = abs(value[used[i]] / change[i]), i
    for i in range(a):
        _move(H, gradient, value, used[i], -value[used[i]] if i == first else step * change[i], ridge)


@_compiled
def _descend(H, gradient, gamma, penalty, ridge, tolerance):
    """Minimise the quadratic model by coordinate descent; returns the change of gamma.

    Where genes are too alike for it to arrive soon, a direct solution for the genes in use comes between the sweeps.
    """
    value = gamma.copy()
    for sweep in range(1, 1001):
        worst = 0.0
        for k in range(value.size):
            curved = H[k, k]
            if curved <= 1e-12:
                continue
            pull = gradient[k] + (curved + ridge[k]) * value[k]
            new = np.sign(pull) * max(abs(pull) - penalty[k], 0.0) / (curved + ridge[k])
            change = new - value[k]
            if change != 0.0:
                _move(H, gradient, value, k, change, ridge)
                worst = max(worst, abs(change) * curved)
        if worst <= tolerance:
            break
        if sweep % 50 == 0:
            _leap(H, gradient, value, penalty, ridge)
    return value - gamma


@_compiled
def _penalised(loss, gamma, penalty, ridge):
    for k in range(gamma.size):
        loss += penalty[k] * abs(gamma[k]) + 0.5 * ridge[k] * gamma[k] ** 2
    return loss


@_compiled
def _solve(A, rows, y, weight, gamma, intercept, penalty, ridge, H, c, reference, known, limit, logistic, out):
    """Newton steps until every optimality condition of the working genes holds to `limit`; gamma changes in place.

    `reference` is the curvature that the first `known` rows of the Gram matrix H were made with; `out` receives linear
    predictor, residual and curvature. Returns the intercept, how many rows of H are known, and whether it converged.
    """
    eta, residual, curvature = out[0], out[1], out[2]
    gradient, last = np.empty(rows.size), np.inf
    loss = _model(A, rows, gamma, intercept, y, weight, logistic, eta, residual, curvature)
    for _ in range(100):
        slope = residual.sum()
        broken = abs(slope)
        for k in range(rows.size):
            gradient[k] = _dot(A[rows[k]], residual) - ridge[k] * gamma[k]
            if gamma[k] != 0.0:
                broken = max(broken, abs(gradient[k] - penalty[k] * np.sign(gamma[k])))
            else:
                broken = max(broken, abs(gradient[k]) - penalty[k])
        if broken <= limit:
            return intercept, known, True
        if known == 0 or broken > 0.3 * last:
            reference[:] = curvature
            known = 0
        if known < rows.size:
            _gram(A, rows, known, reference, H, c)
            known = rows.size
        last, total = broken, reference.sum()
        for k in range(rows.size):
            gradient[k] -= c[k] * slope / total
        delta = _descend(H, gradient, gamma, penalty, ridge, max(0.05 * broken, 0.3 * limit))
        move = slope / total
        for k in range(rows.size):
            move -= delta[k] * c[k] / total
        before, step = _penalised(loss, gamma, penalty, ridge), 1.0
        start, start_intercept = gamma.copy(), intercept
        for _ in range(30):
            gamma[:] = start + step * delta
            intercept = start_intercept + step * move
            loss = _model(A, rows, gamma, intercept, y, weight, logistic, eta, residual, curvature)
            if _penalised(loss, gamma, penalty, ridge) <= before + 1e-12:
                break
            step /= 2
    return intercept, known, False


@_compiled
def _solve_block(A, rows, y, weight, scale, start, lambdas, alpha, logistic, H, c, reference, known, gammas, outs):
    """Solve one training set at the last of `lambdas`, from the two solutions before them.

    `gammas` is (2 + block, 1 + genes), intercepts first, its two leading rows given; `outs` (block, 3, samples). The
    start at each lambda is the straight line through the two before, as far as they are known (`start` of them).
    Returns how many rows of H are known and how many solutions did not converge.
    """
    failed = 0
    for b in range(2, lambdas.size):
        first, second = gammas[b - 2], gammas[b - 1]
        now = gammas[b]
        now[:] = second
        if start + b >= 4:
            ahead = (lambdas[b] - lambdas[b - 1]) / (lambdas[b - 1] - lambdas[b - 2])
            now[0] += ahead * (second[0] - first[0])
            for k in range(1, now.size):
                if first[k] != 0.0 and second[k] != 0.0:
                    guess = second[k] + ahead * (second[k] - first[k])
                    now[k] = guess if guess * second[k] > 0 else second[k]
        penalty, ridge = lambdas[b] * alpha * scale, lambdas[b] * (1 - alpha) * scale**2
        now[0], known, converged = _solve(
            A, rows, y, weight, now[1:], now[0], penalty, ridge, H, c, reference, known,
            TOLERANCE * lambdas[b], logistic, outs[b - 2],
        )  # fmt: skip
        failed += not converged
    return known, failed


@_compiled
def _broken(Z, genes, residuals, exact, thresholds, sets, scale, working, gradients):
    """Genes whose optimality condition a solution breaks, among a chunk of `genes` (first, last + 1).

    Parameters
    ----------
    Z : (genes of the chunk, samples) float32
    residuals : (samples, columns) float32; each column one of `sets` at one lambda, sets fastest
    exact : the same in float64, (columns, samples)
    thresholds : (columns,) lambda * alpha
    scale, working : (all genes, all sets) SD within the set; whether the gene is solved for there
    gradients : (2, all genes, all sets) receives the standardised gradient of the last two lambdas

    Returns
    -------
    (found, 2) gene and set
    """
    G = np.dot(Z, residuals)
    found, n = np.empty((16, 2), np.int64), 0
    last = thresholds.size - sets.size
    for row in range(Z.shape[0]):
        j = genes[0] + row
        for column in range(thresholds.size):
            f = sets[column % sets.size]
            g = G[row, column] / scale[j, f]
            if column >= last:
                if last == 0:
                    gradients[0, j, f] = gradients[1, j, f]
                gradients[1, j, f] = g
            elif column >= last - sets.size:
                gradients[0, j, f] = g
            if abs(g) >= (1 - MARGIN) * thresholds[column] and not working[j, f]:
                if abs(_dot(Z[row], exact[column])) / scale[j, f] > (1 + TOLERANCE) * thresholds[column]:
                    if n == found.shape[0]:
                        found = np.concatenate((found, np.empty_like(found)))
                    found[n, 0], found[n, 1] = j, f
                    n += 1
    return found[:n]


@_compiled
def _nearing(gradients, first, sets, working, ahead, thresholds):
    """Genes, not yet working, that the last two gradients carry to the threshold: (found, 2) gene and set."""
    found, n = np.empty((16, 2), np.int64), 0
    for j in range(working.shape[0]):
        for i in range(sets.size):
            f = sets[i]
            if working[j, f]:
                continue
            now = gradients[1, j, f]
            slope = now - gradients[0, j, f]
            if abs(now + ahead[i, 0] * slope) >= thresholds[i, 0] or abs(now + ahead[i, 1] * slope) >= thresholds[i, 1]:
                if n == found.shape[0]:
                    found = np.concatenate((found, np.empty_like(found)))
                found[n, 0], found[n, 1] = first + j, f
                n += 1
    return found[:n]


def _by_set(pairs: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(gene, set) pairs as one array of different genes a set."""
    pairs = np.unique(pairs[:, ::-1], axis=0)
    sets, starts = np.unique(pairs[:, 0], return_index=True)
    return list(zip(sets.tolist(), np.split(pairs[:, 1], starts[1:]), strict=True)) if len(pairs) else []


class _TrainingSet:
    """One training set on its way along the path: working genes, Gram matrix and the last two solutions."""

    def __init__(self, weight: np.ndarray, y: np.ndarray, logistic: bool, precision: type):
        share = weight @ y
        self.weight = weight
        self.genes = np.empty(0, np.int64)
        self.scale = np.empty(0)
        self.solutions = np.zeros((2, 1))  # intercept, then a coefficient a working gene
        self.solutions[:, 0] = np.log(share / (1 - share)) if logistic else share
        self.start = 0  # how many of them were solved for
        self.H, self.c, self.reference, self.known = np.empty((0, 0), precision), np.empty(0), np.zeros(len(y)), 0

    def drop_idle(self) -> np.ndarray:
        """Forget working genes that were zero twice, once they are many; returns them."""
        used = (self.solutions[:, 1:] != 0).any(axis=0)
        if used.sum() > 0.8 * used.size:
            return self.genes[:0]
        kept, idle = np.flatnonzero(used), self.genes[~used]
        known = kept[kept < self.known]
        self.H[: known.size, : known.size] = self.H[np.ix_(known, known)]
        self.c[: known.size], self.known = self.c[known], known.size
        self.genes, self.scale = self.genes[kept], self.scale[kept]
        self.solutions = self.solutions[:, np.r_[0, kept + 1]]
        return idle

    def add(self, genes: np.ndarray, scale: np.ndarray) -> None:
        """Take genes into the working set, at zero."""
        self.genes, self.scale = np.r_[self.genes, genes], np.r_[self.scale, scale]
        self.solutions = np.pad(self.solutions, ((0, 0), (0, genes.size)))
        if self.genes.size > len(self.c):
            size = int(1.5 * self.genes.size) + 32
            H, c = np.empty((size, size), self.H.dtype), np.empty(size)
            H[: self.known, : self.known], c[: self.known] = self.H[: self.known, : self.known], self.c[: self.known]
            self.H, self.c = H, c


class Lockstep:
    """All training sets of one matrix, advanced together, a block of lambdas at a time."""

    def __init__(self, X: np.ndarray, y: np.ndarray, masks: np.ndarray, logistic: bool, alpha: float, pool: Executor):
        self.X, self.y, self.logistic, self.alpha, self.pool = X, y, logistic, alpha, pool
        n, p = X.shape
        self.mean, self.Z = np.empty(p), np.empty((p, n), np.float32)
        self.unit = np.empty(p)  # SD over the whole matrix
        self.chunks = [(s, min(s + 512, p)) for s in range(0, p, 512)]
        weights = masks / masks.sum(axis=1, keepdims=True)
        self.scale = np.empty((p, len(masks)), np.float32)
        share = np.ascontiguousarray(weights.T, dtype=np.float32)
        list(pool.map(lambda chunk: self._standardise(chunk, share), self.chunks))
        # The Gram matrix shapes steps, not solutions, so float32 would do; but with more samples than genes a path may
        # go on until few samples still count, where rounded steps no longer arrive.
        precision = np.float32 if n < p else np.float64
        self.sets = [_TrainingSet(weight, y, logistic, precision) for weight in weights]
        self.working = np.zeros((p, len(masks)), bool)
        self.gradients = np.zeros((2, p, len(masks)), np.float32)  # at the last two lambdas
        self.slot, self.A, self.used = np.full(p, -1), np.empty((min(p, 512), n)), 0
        null = weights * (y - (weights @ y)[:, None])
        self._verify(range(len(masks)), null[None], np.full((1, len(masks)), np.inf))

    def _standardise(self, chunk: tuple[int, int], share: np.ndarray) -> None:
        """Genes on rows, centred and scaled over all samples; and their SD within each training set."""
        rows = slice(*chunk)
        block = self.X[:, rows].T.astype(np.float64)
        self.mean[rows] = block.mean(axis=1)
        block -= self.mean[rows, None]
        unit = np.sqrt(np.einsum("ij,ij->i", block, block) / block.shape[1])
        unit[unit <= 1e-10 * np.maximum(np.abs(self.mean[rows]), 1e-300)] = 0  # constant, but for rounding
        self.unit[rows] = unit
        Z = self.Z[rows]
        Z[:] = block / np.where(unit > 0, unit, np.inf)[:, None]
        within = np.sqrt(np.maximum((Z * Z) @ share - (Z @ share) ** 2, 0))
        self.scale[rows] = np.where(within > 1e-3, within, np.inf)  # constant within the set: never chosen

    def largest_lambda(self, f: int) -> float:
        """The smallest lambda at which set `f` keeps no gene, in float64."""
        near = np.argsort(-np.abs(self.gradients[1][:, f]))[:16]
        near = near[np.isfinite(self.scale[near, f])]
        if near.size == 0:
            raise ValueError(f"training set {f}: every gene is constant there; nothing can be fitted.")
        self._pool(near)
        s = self.sets[f]
        residual = s.weight * (self.y - s.weight @ self.y)
        return float(np.max(np.abs(self.A[self.slot[near]] @ residual) / self._sd(f, near)) / self.alpha)

    def _pool(self, genes: np.ndarray) -> None:
        """Copy genes, standardised in float64, to the rows that the solver reads."""
        new = genes[self.slot[genes] < 0]
        while self.used + new.size > len(self.A):
            self.A = np.vstack([self.A, np.empty_like(self.A)])
        rows = np.arange(self.used, self.used + new.size)
        self.A[rows] = (self.X[:, new].astype(np.float64).T - self.mean[new, None]) / self.unit[new, None]
        self.slot[new] = rows
        self.used += new.size

    def _sd(self, f: int, genes: np.ndarray) -> np.ndarray:
        block, weight = self.A[self.slot[genes]], self.sets[f].weight
        return np.sqrt((block * block) @ weight - (block @ weight) ** 2)

    def _take(self, f: int, genes: np.ndarray) -> None:
        self._pool(genes)
        self.sets[f].add(genes, self._sd(f, genes))
        self.working[genes, f] = True

    def advance(self, active: Sequence[int], lambdas: np.ndarray) -> tuple[list, np.ndarray]:
        """Solve the sets `active` at a block of lambdas.

        Parameters
        ----------
        lambdas : (sets, 2 + block) of which the first two are the ones before (NaN at the start)

        Returns
        -------
        for each active set (genes, (block, 1 + genes) solutions); linear predictors (block, active, samples)
        """
        active = list(active)
        self._predict(active, lambdas[active])
        todo, solved = list(range(len(active))), [None] * len(active)
        outs = np.empty((len(active), lambdas.shape[1] - 2, 3, len(self.y)))
        while todo:
            done = self.pool.map(lambda i: self._solve(active[i], lambdas[active[i]], outs[i]), todo)
            for i, gammas in zip(todo, done, strict=True):
                solved[i] = gammas
            sets = [active[i] for i in todo]
            broken = self._verify(sets, outs[todo, :, 1].swapaxes(0, 1), self.alpha * lambdas[sets, 2:].T)
            again = _by_set(broken)
            for f, genes in again:
                self._take(f, genes)
            todo = [active.index(f) for f, _ in again]
        for f, gammas in zip(active, solved, strict=True):
            self.sets[f].solutions = gammas[-2:].copy()
            self.sets[f].start = min(2, self.sets[f].start + len(gammas) - 2)
        found = [(self.sets[f].genes.copy(), gammas[2:]) for f, gammas in zip(active, solved, strict=True)]
        return found, outs[:, :, 0].swapaxes(0, 1)

    def _predict(self, active: list[int], lambdas: np.ndarray) -> None:
        """Working genes of the block: those active now, and those whose gradient is on its way to the threshold."""
        for f in active:
            self.working[self.sets[f].drop_idle(), f] = False
        steps = lambdas[:, [2, -1]] - lambdas[:, 1:2]
        ahead = np.nan_to_num(steps / (lambdas[:, 1] - lambdas[:, 0])[:, None]).astype(np.float32)
        thresholds = ((1 - MARGIN) * self.alpha * lambdas[:, [2, -1]]).astype(np.float32)
        columns = np.array(active)

        def look(chunk):
            rows = slice(*chunk)
            return _nearing(self.gradients[:, rows], chunk[0], columns, self.working[rows], ahead, thresholds)

        near = np.concatenate(list(self.pool.map(look, self.chunks)))
        for f, genes in _by_set(near):
            self._take(f, genes)

    def _solve(self, f: int, lambdas: np.ndarray, outs: np.ndarray) -> np.ndarray:
        s = self.sets[f]
        gammas = np.zeros((lambdas.size, 1 + s.genes.size))
        gammas[:2] = s.solutions
        s.known, failed = _solve_block(
            self.A, self.slot[s.genes], self.y, s.weight, s.scale, s.start, lambdas, self.alpha, self.logistic,
            s.H, s.c, s.reference, s.known, gammas, outs,
        )  # fmt: skip
        if failed:
            where = f"between lambda {lambdas[2]:.3g} and {lambdas[-1]:.3g}"
            warnings.warn(
                f"{failed} of {len(outs)} solutions {where} did not reach the tolerance; raise the smallest lambda.",
                RuntimeWarning,
                stacklevel=2,
            )
        return gammas

    def _verify(self, sets: Sequence[int], residuals: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
        """Which genes break the conditions of the solutions with these residuals, (block, sets, samples)."""
        numbers = np.array(sets)
        exact = np.ascontiguousarray(residuals.reshape(-1, len(self.y)))
        single = np.ascontiguousarray(exact.T, dtype=np.float32)
        shared = single, exact, thresholds.ravel(), numbers, self.scale, self.working, self.gradients
        found = self.pool.map(lambda chunk: _broken(self.Z[slice(*chunk)], chunk, *shared), self.chunks)
        return np.concatenate(list(found))

    def to_path(self, lambdas: np.ndarray, blocks: list) -> Path:
        """Solutions of one set, block by block, as coefficients on the scale of X."""
        values, columns, lengths, intercepts = [], [], [], []
        for genes, solutions in blocks:
            for solution in solutions:
                kept = np.flatnonzero(solution[1:])
                beta = solution[1 + kept] / self.unit[genes[kept]]
                values.append(beta)
                columns.append(genes[kept])
                lengths.append(kept.size)
                intercepts.append(solution[0] - beta @ self.mean[genes[kept]])
        parts = np.concatenate(values), np.concatenate(columns), np.r_[0, np.cumsum(lengths)]
        coefficients = sparse.csr_matrix(parts, shape=(len(lengths), len(self.mean)))
        coefficients.sort_indices()
        return Path(lambdas[: len(lengths)], np.array(intercepts), coefficients)
