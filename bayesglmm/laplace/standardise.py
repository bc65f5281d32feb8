"""Random effects in standardised coordinates, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from bayesglmm.design import Design
from bayesglmm.laplace.blocks import (
    Array,
    Factor,
    Integers,
    Layout,
    inverse_blocks,
    inverse_trailing,
    leverages,
)
from bayesglmm.laplace.estimate import EffectVariance


def standardised(layout: Layout, design: Design) -> tuple[Layout, tuple[Array, ...]]:
    """The layout with orthonormal (or, for independent effects, unit) columns of Z.

    The effects become b* with b = T b*. So neither the unit nor the origin of a random slope's
    covariate affects the search, the steps of differences, or what counts as zero.

    Returns
    -------
    Layout, tuple of (K_f, K_f) T
    """
    columns, transforms = [], []
    for term, Z in zip(design.random, layout.Z, strict=True):
        rms = np.sqrt(np.mean(Z * Z, axis=0))
        T = np.diag(1.0 / np.where(rms > 0.0, rms, 1.0))
        if term.correlated and len(rms) > 1:
            R = np.linalg.qr(Z @ T, mode="r") / np.sqrt(len(Z))
            if np.linalg.cond(R) < 1e8:
                T = T @ np.linalg.inv(R)
        columns.append(Z @ T)
        transforms.append(T)
    return replace(layout, Z=tuple(columns)), tuple(transforms)


def mode_covariance(
    factor: Factor, transforms: tuple[Array, ...], sigma: float
) -> tuple[Array, ...]:
    """Conditional covariances of b, (J_f, K_f, K_f)."""
    blocks = inverse_blocks(factor, inverse_trailing(factor))
    lifts = [T @ L for T, L in zip(transforms, factor.lambdas, strict=True)]
    return tuple(
        sigma**2 * (lift @ block @ lift.T) for lift, block in zip(lifts, blocks, strict=True)
    )


def effect_variance(factor: Factor, transforms: tuple[Array, ...], sigma: float) -> EffectVariance:
    """Variance of sum_f z_f'b_f at any rows: their leverages."""

    def variance(groups: Sequence[tuple[Integers, Array]]) -> Array:
        layout = replace(
            factor.layout,
            index=tuple(index for index, _ in groups),
            Z=tuple(Z @ T for (_, Z), T in zip(groups, transforms, strict=True)),
        )
        return sigma**2 * leverages(replace(factor, layout=layout), inverse_trailing(factor))

    return variance


def coefficient_map(
    factor: Factor, transforms: tuple[Array, ...], ux: list[Array]
) -> tuple[Array, ...]:
    """T Lambda H^-1 M'WX, (J_f, K_f, p)."""
    lifts = [T @ L for T, L in zip(transforms, factor.lambdas, strict=True)]
    return tuple(np.einsum("kc,jcp->jkp", L, part) for L, part in zip(lifts, ux, strict=True))
