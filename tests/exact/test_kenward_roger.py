"""Kenward and Roger's method against the formulas written out with n x n matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import bayesglmm as bg
from bayesglmm.laplace import kenward_roger
from bayesglmm.laplace.covariance import covariance_of
from bayesglmm.laplace.estimate import Estimate
from bayesglmm.laplace.joint import joint_test
from bayesglmm.posterior.ml import MLPosterior

KR = bg.ML(reml=True, df="kenward-roger")


def made_up(seed: int = 3) -> pl.DataFrame:
    """Unbalanced, with weights, nested and crossed factors, and a slope."""
    rng = np.random.default_rng(seed)
    n = 70
    a, b = rng.integers(0, 6, n), rng.integers(0, 5, n)
    c = a * 3 + rng.integers(0, 3, n)
    x = 2.0 + rng.normal(size=n)
    effects = rng.normal(size=(3, 20))
    slopes = rng.normal(size=6)
    y = effects[0][a] + effects[1][b] + 0.5 * effects[2][c] + (x - 2.0) * slopes[a]
    return pl.DataFrame(
        {
            "y": y + rng.normal(size=n),
            "x": x,
            "f": [["p", "q", "r"][k] for k in rng.integers(0, 3, n)],
            "a": [f"a{k}" for k in a],
            "b": [f"b{k}" for k in b],
            "c": [f"c{k:02}" for k in c],
            "w": rng.uniform(0.5, 2.0, n),
        }
    )


def estimate_of(fit: bg.Fit) -> Estimate:
    assert isinstance(fit.posterior, MLPosterior)
    return fit.posterior.estimate


def dense(fit: bg.Fit) -> dict[str, Any]:
    """Phi, the adjusted covariance, P, W as in the article."""
    design, at = fit.model.design, estimate_of(fit)
    n, X = design.n, design.X
    lambdas = covariance_of(design.random).lambdas(at.theta)
    V, G = np.diag(1.0 / design.weights) * at.sigma**2, []
    for term, factor in zip(design.random, lambdas, strict=True):
        Z = np.zeros((n, term.J, term.K))
        Z[np.arange(n), term.index] = term.Z
        V += at.sigma**2 * np.einsum("ija,ab,kjb->ik", Z, factor @ factor.T, Z)
        for r in range(term.K):
            for s in range(r + 1):
                if r == s:
                    G.append(np.einsum("ij,kj->ik", Z[..., r], Z[..., r]))
                elif term.correlated:
                    cross = np.einsum("ij,kj->ik", Z[..., r], Z[..., s])
                    G.append(cross + cross.T)
    G.append(np.diag(1.0 / design.weights))
    Vi = np.linalg.inv(V)
    phi = np.linalg.inv(X.T @ Vi @ X)
    m = len(G)
    P = [-X.T @ Vi @ g @ Vi @ X for g in G]
    Q = [[X.T @ Vi @ g @ Vi @ h @ Vi @ X for h in G] for g in G]
    information = np.array(
        [
            [
                np.trace(Vi @ G[r] @ Vi @ G[s])
                - 2.0 * np.trace(phi @ Q[r][s])
                + np.trace(phi @ P[r] @ phi @ P[s])
                for s in range(m)
            ]
            for r in range(m)
        ]
    )
    W = 2.0 * np.linalg.inv(information)
    added = sum(W[r, s] * (Q[r][s] - P[r] @ phi @ P[s]) for r in range(m) for s in range(m))
    return {"phi": phi, "adjusted": phi + 2.0 * phi @ added @ phi, "P": P, "W": W}


FORMULAS = [
    "y ~ f + (1|a)",
    "y ~ f * x + (x|a)",
    "y ~ f + x + (x||a) + (1|b)",
    "y ~ f + (1|a/c)",
    "y ~ f + (1|a/c) + (1|b)",
    "y ~ 0 + f + (0 + f|a)",
]


@pytest.mark.filterwarnings("ignore::bayesglmm.errors.BayesglmmWarning")  # singular ones too
@pytest.mark.parametrize("formula", FORMULAS)
def test_the_same_as_with_dense_matrices(formula: str) -> None:
    fit = bg.lmer(formula, made_up(), weights="w").fit(KR)
    at, known = estimate_of(fit), dense(fit)
    scale = np.sqrt(np.outer(*[np.diag(known["phi"])] * 2))
    np.testing.assert_allclose(at.unadjusted / scale, known["phi"] / scale, atol=1e-8)
    np.testing.assert_allclose(at.vcov / scale, known["adjusted"] / scale, atol=1e-7)
    phi = known["phi"]
    for ell in (np.eye(len(phi))[0], np.ones(len(phi))):
        slopes = np.array([ell @ phi @ P @ phi @ ell for P in known["P"]])
        df = 2.0 * (ell @ phi @ ell) ** 2 / (slopes @ known["W"] @ slopes)
        assert at.degrees_of_freedom(ell[None])[0] == pytest.approx(df, rel=1e-5)


def test_balanced_designs_give_the_textbook_f() -> None:
    """Split plots: F of mean squares, whole degrees of freedom, no adjustment."""
    rng = np.random.default_rng(1)
    block, plot, sub = (v.ravel() for v in np.meshgrid(range(6), range(3), range(4), indexing="ij"))
    y = (
        rng.normal(size=6)[block]
        + 1.5 * rng.normal(size=(6, 3))[block, plot]
        + 0.5 * rng.normal(size=len(block))
        + 0.3 * sub
    )
    data = pl.DataFrame({"y": y, "block": block, "plot": plot, "sub": sub})
    factors = ["block", "plot", "sub"]
    fit = bg.lmer("y ~ plot * sub + (1|block) + (1|block:plot)", data, factors=factors).fit(KR)
    np.testing.assert_allclose(fit.vcov, estimate_of(fit).unadjusted, rtol=1e-6, atol=1e-12)
    table = bg.anova(fit)
    np.testing.assert_allclose(table["den_df"], [10.0, 45.0, 45.0], rtol=1e-5)
    lm = bg.lm("y ~ block + plot * sub + block:plot", data, factors=factors).fit()
    rows = {row["term"]: row for row in bg.anova(lm, type="I").iter_rows(named=True)}
    by_plot = rows["plot"]["mean_sq"] / rows["block:plot"]["mean_sq"]
    assert table["f_stat"][0] == pytest.approx(by_plot, rel=1e-6)
    assert table["f_stat"][1] == pytest.approx(rows["sub"]["f_stat"], rel=1e-6)


def test_one_row_f_is_the_square_of_t() -> None:
    fit = bg.lmer("y ~ f * x + (1|a) + (1|b)", made_up(), weights="w").fit(KR)
    for k in range(fit.model.design.p):
        test = joint_test(estimate_of(fit), np.eye(fit.model.design.p)[[k]])
        assert test.scaling == pytest.approx(1.0, abs=1e-9)
        assert test.statistic == pytest.approx(fit.params["t_stat"][k] ** 2)
        assert test.den_df == pytest.approx(fit.params["df"][k], rel=1e-9)


def test_neither_units_nor_basis_matter() -> None:
    data = made_up()
    moved = data.with_columns(x=(pl.col("x") + 50.0) * 1e3)
    tables = [
        bg.anova(bg.lmer("y ~ f + x + (x|a)", frame).fit(KR), type="II") for frame in (data, moved)
    ]
    for column in ("f_stat", "den_df"):
        np.testing.assert_allclose(tables[0][column], tables[1][column], rtol=1e-5)


def test_only_for_reml() -> None:
    with pytest.raises(bg.ChoiceError, match=r"REML fits.*fit\('reml', df='kenward-roger'\)"):
        bg.ML(df="kenward-roger")
    with pytest.raises(bg.ChoiceError, match="its own covariance"):
        bg.ML(reml=True, df="kenward-roger", vcov="hessian")
    with pytest.raises(bg.ChoiceError, match="did you mean 'kenward-roger'"):
        bg.ML(df="kenward-rodger")  # type: ignore[arg-type]


def test_too_many_crossed_effects_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kenward_roger, "_LARGEST_BLOCK", 10)
    model = bg.lmer("y ~ f + (1|a) + (1|b)", made_up())
    with pytest.raises(bg.FitError, match=r"11 x 11.*df='satterthwaite'"):
        model.fit(KR)
    assert bg.lmer("y ~ f + (1|a)", made_up()).fit(KR).method == "REML"
