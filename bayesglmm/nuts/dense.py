# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Cholesky factors of dense matrices inside compiled functions."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Up to this size a plain loop is faster than LAPACK's calls.
_SMALL = 24


@njit(cache=True, nogil=True, error_model="numpy")
def cholesky(A):
    """The lower Cholesky factor of A in place, the rest zero; False if it is not positive."""
    n = len(A)
    if n > _SMALL:
        try:
            A[:] = np.linalg.cholesky(A)
        except Exception:  # what LAPACK says is all that can be caught here
            return False
        return True
    for i in range(n):
        for j in range(i + 1):
            total = A[i, j]
            for k in range(j):
                total -= A[i, k] * A[j, k]
            if i == j:
                if not total > 0.0:
                    return False
                A[i, i] = math.sqrt(total)
            else:
                A[i, j] = total / A[j, j]
        for j in range(i + 1, n):
            A[i, j] = 0.0
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def inverse(L, out):
    """out = (L L')^-1."""
    n = len(L)
    if n > _SMALL:
        half = np.linalg.inv(L)
        out[:] = half.T @ half
        return
    half = np.zeros((n, n))
    for j in range(n):
        for i in range(j, n):
            total = 1.0 if i == j else 0.0
            for k in range(j, i):
                total -= L[i, k] * half[k, j]
            half[i, j] = total / L[i, i]
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, n):
                total += half[k, i] * half[k, j]
            out[i, j] = total
            out[j, i] = total


@njit(cache=True, nogil=True, error_model="numpy")
def forward(L, first, R):
    """L^-1 R in place, for the rows of R (effects, m) from ``first`` on."""
    for i in range(len(L)):
        for k in range(R.shape[1]):
            total = R[first + i, k]
            for j in range(i):
                total -= L[i, j] * R[first + j, k]
            R[first + i, k] = total / L[i, i]


@njit(cache=True, nogil=True, error_model="numpy")
def backward(L, first, R):
    """L'^-1 R in place, for the rows of R (effects, m) from ``first`` on."""
    for i in range(len(L) - 1, -1, -1):
        for k in range(R.shape[1]):
            R[first + i, k] /= L[i, i]
        for j in range(i):
            for k in range(R.shape[1]):
                R[first + j, k] -= L[i, j] * R[first + i, k]
