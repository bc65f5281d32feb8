# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled loops over rows and over blocks: sums, elimination, solves, the selected inverse.

Arguments shared by all: ``s`` is ``Structure.arrays`` (see `structure.py`); ``Z`` (n, columns)
holds the columns of all terms; a *flat* array of blocks has one K_f x K_g block for every entry
of every pair of terms; ``lam`` holds the K_f x K_f matrices Lambda_f one after the other; effects
are flat vectors. All terms are in order of elimination. After `eliminate` the diagonal block of
a chain level holds its Cholesky factor L and the blocks beside it L^-1 B.

Compiled once and kept on disk by numba; the interpreter's lock is released.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from bayesglmm.families.compiled import evaluate

# ------------------------------------------------------------------------------ over the rows


@njit(cache=True, nogil=True, error_model="numpy")
def add_effects(s, Z, fixed, b, eta):
    """eta = fixed + Z b."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    n = len(eta)
    for i in range(n):
        eta[i] = fixed[i]
    for f in range(len(terms)):
        K, first, column = terms[f, 1], terms[f, 2], terms[f, 3]
        line = pairs[pair_of[f, f], 2]
        if K == 1:
            for i in range(n):
                eta[i] += Z[i, column] * b[first + slots[line, i], 0]
        else:
            for i in range(n):
                at = first + slots[line, i] * K
                total = 0.0
                for k in range(K):
                    total += Z[i, column + k] * b[at + k, 0]
                eta[i] += total


@njit(cache=True, nogil=True, error_model="numpy")
def sum_rows(s, Z, V, out):
    """out = Z'V for V (n, m): (effects, m)."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    n, m = V.shape
    out[:] = 0.0
    for f in range(len(terms)):
        K, first, column = terms[f, 1], terms[f, 2], terms[f, 3]
        line = pairs[pair_of[f, f], 2]
        for i in range(n):
            at = first + slots[line, i] * K
            for k in range(K):
                z = Z[i, column + k]
                for c in range(m):
                    out[at + k, c] += z * V[i, c]


@njit(cache=True, nogil=True, error_model="numpy")
def cross_products(s, Z, w, W):
    """W = Z' diag(w) Z at every pair of levels that meet."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    n = len(w)
    W[:] = 0.0
    for p in range(len(pairs)):
        f, g, line, base = pairs[p, 0], pairs[p, 1], pairs[p, 2], pairs[p, 4]
        Kf, Kg, cf, cg = terms[f, 1], terms[g, 1], terms[f, 3], terms[g, 3]
        if Kf == 1 and Kg == 1:
            for i in range(n):
                W[base + slots[line, i]] += w[i] * Z[i, cf] * Z[i, cg]
        else:
            for i in range(n):
                at = base + slots[line, i] * Kf * Kg
                for a in range(Kf):
                    wz = w[i] * Z[i, cf + a]
                    for c in range(Kg):
                        W[at + a * Kg + c] += wz * Z[i, cg + c]


@njit(cache=True, nogil=True, error_model="numpy")
def quadratic_form(s, Z, C, out):
    """out = z' C z for every row, C the blocks of a symmetric matrix at the pairs of levels."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    n = len(out)
    out[:] = 0.0
    for p in range(len(pairs)):
        f, g, line, base = pairs[p, 0], pairs[p, 1], pairs[p, 2], pairs[p, 4]
        Kf, Kg, cf, cg = terms[f, 1], terms[g, 1], terms[f, 3], terms[g, 3]
        twice = 1.0 if f == g else 2.0
        for i in range(n):
            at = base + slots[line, i] * Kf * Kg
            total = 0.0
            for a in range(Kf):
                inner = 0.0
                for c in range(Kg):
                    inner += C[at + a * Kg + c] * Z[i, cg + c]
                total += Z[i, cf + a] * inner
            out[i] += twice * total


@njit(cache=True, nogil=True, error_model="numpy")
def predict(s, lam, Z, fixed, u, b, eta):
    """b = Lambda u and eta = fixed + Z b, for u (effects, 1)."""
    scale_effects(s, lam, u, b)
    add_effects(s, Z, fixed, b, eta)


@njit(cache=True, nogil=True, error_model="numpy")
def pull_rows(s, lam, Z, v, score, out):
    """score = Z'v and out = Lambda' score, for v (n, m)."""
    sum_rows(s, Z, v, score)
    scale_sums(s, lam, score, out)


# ----------------------------------------------------------------------------- over the blocks


@njit(cache=True, nogil=True, error_model="numpy")
def _lambda_starts(terms):
    out = np.zeros(len(terms) + 1, dtype=np.int64)
    for f in range(len(terms)):
        out[f + 1] = out[f] + terms[f, 1] * terms[f, 1]
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def scale_effects(s, lam, U, B):
    """B = Lambda U, level by level, for U (effects, m)."""
    terms = s[0]
    at = _lambda_starts(terms)
    m = U.shape[1]
    for f in range(len(terms)):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        for j in range(J):
            for a in range(K):
                for k in range(m):
                    total = 0.0
                    for c in range(a + 1):  # Lambda is lower triangular
                        total += lam[at[f] + a * K + c] * U[first + j * K + c, k]
                    B[first + j * K + a, k] = total


@njit(cache=True, nogil=True, error_model="numpy")
def unscale_effects(s, lam, b, u):
    """u with Lambda u = b for b (effects, 1), zero where Lambda has lost a column."""
    terms = s[0]
    at = _lambda_starts(terms)
    for f in range(len(terms)):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        largest = 0.0
        for v in range(at[f], at[f + 1]):
            largest = max(largest, abs(lam[v]))
        for j in range(J):
            for a in range(K):
                value = b[first + j * K + a, 0]
                for c in range(a):
                    value -= lam[at[f] + a * K + c] * u[first + j * K + c, 0]
                pivot = lam[at[f] + a * K + a]
                u[first + j * K + a, 0] = value / pivot if abs(pivot) > 1e-3 * largest else 0.0


@njit(cache=True, nogil=True, error_model="numpy")
def scale_sums(s, lam, R, out):
    """out = Lambda' R, level by level, for R (effects, m)."""
    terms = s[0]
    at = _lambda_starts(terms)
    m = R.shape[1]
    for f in range(len(terms)):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        for j in range(J):
            for c in range(K):
                for k in range(m):
                    total = 0.0
                    for a in range(c, K):
                        total += lam[at[f] + a * K + c] * R[first + j * K + a, k]
                    out[first + j * K + c, k] = total


@njit(cache=True, nogil=True, error_model="numpy")
def multiply_blocks(s, W, B, out):
    """out = (symmetric matrix with blocks W) B for B (effects, m)."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    m = B.shape[1]
    out[:] = 0.0
    for p in range(len(pairs)):
        f, g, count, base, entry = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4], pairs[p, 5]
        Kf, Kg, ff, fg = terms[f, 1], terms[g, 1], terms[f, 2], terms[g, 2]
        for e in range(count):
            row, col = ff + levels[0, entry + e] * Kf, fg + levels[1, entry + e] * Kg
            for a in range(Kf):
                for c in range(Kg):
                    v = W[base + (e * Kf + a) * Kg + c]
                    for k in range(m):
                        out[row + a, k] += v * B[col + c, k]
                        if f != g:
                            out[col + c, k] += v * B[row + a, k]


@njit(cache=True, nogil=True, error_model="numpy")
def congruence(s, lam, W, H):
    """H = A_f' W A_g for every block, for any K_f x K_f matrices A_f one after the other."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    at = _lambda_starts(terms)
    largest = terms[:, 1].max()
    half = np.empty((largest, largest))
    for p in range(len(pairs)):
        f, g, count, base = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4]
        Kf, Kg = terms[f, 1], terms[g, 1]
        if Kf == 1 and Kg == 1:
            scale = lam[at[f]] * lam[at[g]]
            for e in range(count):
                H[base + e] = scale * W[base + e]
            continue
        for e in range(count):
            block = base + e * Kf * Kg
            for a in range(Kf):
                for c in range(Kg):
                    total = 0.0
                    for k in range(Kf):
                        total += lam[at[f] + k * Kf + a] * W[block + k * Kg + c]
                    half[a, c] = total
            for a in range(Kf):
                for c in range(Kg):
                    total = 0.0
                    for k in range(Kg):
                        total += half[a, k] * lam[at[g] + k * Kg + c]
                    H[block + a * Kg + c] = total


@njit(cache=True, nogil=True, error_model="numpy")
def lift(s, lam, E, C):
    """C = Lambda_f E Lambda_g' for every block."""
    terms = s[0]
    at = _lambda_starts(terms)
    turned = np.empty_like(lam)
    for f in range(len(terms)):
        K = terms[f, 1]
        for a in range(K):
            for c in range(K):
                turned[at[f] + a * K + c] = lam[at[f] + c * K + a]
    congruence(s, turned, E, C)


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_block(H, block, K):
    """Cholesky factor of a K x K block, in place (lower); False if not positive definite."""
    for a in range(K):
        for c in range(a + 1):
            total = H[block + a * K + c]
            for k in range(c):
                total -= H[block + a * K + k] * H[block + c * K + k]
            if a == c:
                if not total > 0.0:
                    return False
                H[block + a * K + a] = math.sqrt(total)
            else:
                H[block + a * K + c] = total / H[block + c * K + c]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def eliminate(s, H):
    """Add the identity to H and eliminate the chain in place.

    The trailing blocks are left as they are: see `fill_rows`. Returns log det of the chain, or
    NaN if a block is not positive definite.
    """
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    F = len(terms)
    for f in range(F):
        p = pair_of[f, f]
        K, base = terms[f, 1], pairs[p, 4]
        for j in range(terms[f, 0]):
            for a in range(K):
                H[base + (j * K + a) * K + a] += 1.0
    logdet = 0.0
    for f in range(n_chain):
        p = pair_of[f, f]
        K, own = terms[f, 1], pairs[p, 4]
        for j in range(terms[f, 0]):
            block = own + j * K * K
            if not _factor_block(H, block, K):
                return math.nan
            for a in range(K):
                logdet += 2.0 * math.log(H[block + a * K + a])
            for g in range(f + 1, F):  # L^-1 B
                pg = pair_of[f, g]
                Kg, base = terms[g, 1], pairs[pg, 4]
                for e in range(starts[pairs[pg, 6] + j], starts[pairs[pg, 6] + j + 1]):
                    at = base + e * K * Kg
                    for a in range(K):
                        for c in range(Kg):
                            total = H[at + a * Kg + c]
                            for k in range(a):
                                total -= H[block + a * K + k] * H[at + k * Kg + c]
                            H[at + a * Kg + c] = total / H[block + a * K + a]
            for g in range(f + 1, n_chain):  # what this level takes from later chain levels
                pg = pair_of[f, g]
                Kg = terms[g, 1]
                by = pairs[pg, 4] + starts[pairs[pg, 6] + j] * K * Kg  # it meets one level of g
                for h in range(g, F):
                    ph, pt = pair_of[f, h], pair_of[g, h]
                    Kh = terms[h, 1]
                    for x in range(starts[pairs[ph, 6] + j], starts[pairs[ph, 6] + j + 1]):
                        bx = pairs[ph, 4] + x * K * Kh
                        target = pairs[pt, 4] + up[up_of[f, g, h] + x] * Kg * Kh
                        for a in range(Kg):
                            for c in range(Kh):
                                total = 0.0
                                for k in range(K):
                                    total += H[by + k * Kg + a] * H[bx + k * Kh + c]
                                H[target + a * Kh + c] -= total
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def fill_blocks(s, H, S):
    """The trailing blocks of H into the lower triangle of the dense S, before elimination."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    S[:] = 0.0
    for f in range(n_chain, len(terms)):
        for g in range(f, len(terms)):
            p = pair_of[f, g]
            count, base, entry = pairs[p, 3], pairs[p, 4], pairs[p, 5]
            Kf, Kg, df, dg = terms[f, 1], terms[g, 1], terms[f, 4], terms[g, 4]
            for e in range(count):
                col, row = df + levels[0, entry + e] * Kf, dg + levels[1, entry + e] * Kg
                for a in range(Kf):
                    for c in range(Kg):
                        S[row + c, col + a] = H[base + (e * Kf + a) * Kg + c]


@njit(cache=True, nogil=True, error_model="numpy")
def fill_rows(s, H, S, h, begin, end):
    """Take from S what the chain explains, for levels ``begin`` to ``end`` of trailing term h.

    Row by row: a row of S stays in cache while all levels that meet it pass. Rows are
    independent, so that ranges of them may run in parallel.
    """
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    Kh, dh = terms[h, 1], terms[h, 4]
    for f in range(n_chain):
        K, p = terms[f, 1], pair_of[f, h]
        base_h, entry_h = pairs[p, 4], pairs[p, 5]
        for r in range(begin, end):
            for t in range(turned_starts[pairs[p, 8] + r], turned_starts[pairs[p, 8] + r + 1]):
                x = turned[pairs[p, 7] + t]
                j, bx = levels[0, entry_h + x], base_h + x * K * Kh
                for g in range(n_chain, h + 1):
                    pg = pair_of[f, g]
                    Kg, dg, base_g, entry_g = terms[g, 1], terms[g, 4], pairs[pg, 4], pairs[pg, 5]
                    first = starts[pairs[pg, 6] + j]
                    last = x + 1 if g == h else starts[pairs[pg, 6] + j + 1]
                    if K == 1 and Kg == 1 and Kh == 1:
                        row, value = S[dh + r], H[bx]
                        for y in range(first, last):
                            row[dg + levels[1, entry_g + y]] -= value * H[base_g + y]
                    else:
                        for y in range(first, last):
                            col, by = dg + levels[1, entry_g + y] * Kg, base_g + y * K * Kg
                            for c in range(Kh):
                                for a in range(Kg):
                                    total = 0.0
                                    for k in range(K):
                                        total += H[by + k * Kg + a] * H[bx + k * Kh + c]
                                    S[dh + r * Kh + c, col + a] -= total


@njit(cache=True, nogil=True, error_model="numpy")
def spread(s, H, X):
    """The blocks of H between the chain and the trailing terms as a dense X (chain effects, q)."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    X[:] = 0.0
    for f in range(n_chain):
        for h in range(n_chain, len(terms)):
            p = pair_of[f, h]
            K, Kh, count, base, entry = (
                terms[f, 1],
                terms[h, 1],
                pairs[p, 3],
                pairs[p, 4],
                pairs[p, 5],
            )
            for e in range(count):
                row, col = (
                    terms[f, 2] + levels[0, entry + e] * K,
                    terms[h, 4] + levels[1, entry + e] * Kh,
                )
                for a in range(K):
                    for c in range(Kh):
                        X[row + a, col + c] = H[base + (e * K + a) * Kh + c]


@njit(cache=True, nogil=True, error_model="numpy")
def collect(s, X, E):
    """The inverse of `spread`: entries of a dense X at the pairs of levels, into E."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    for f in range(n_chain):
        for h in range(n_chain, len(terms)):
            p = pair_of[f, h]
            K, Kh, count, base, entry = (
                terms[f, 1],
                terms[h, 1],
                pairs[p, 3],
                pairs[p, 4],
                pairs[p, 5],
            )
            for e in range(count):
                row, col = (
                    terms[f, 2] + levels[0, entry + e] * K,
                    terms[h, 4] + levels[1, entry + e] * Kh,
                )
                for a in range(K):
                    for c in range(Kh):
                        E[base + (e * K + a) * Kh + c] = X[row + a, col + c]


@njit(cache=True, nogil=True, error_model="numpy")
def assemble(s, lam, W, H):
    """H = I + Lambda' W Lambda, its chain eliminated: see `eliminate`."""
    congruence(s, lam, W, H)
    return eliminate(s, H)


@njit(cache=True, nogil=True, error_model="numpy")
def symmetrise(S):
    """Copy the lower triangle of S to the upper one, in tiles."""
    q = len(S)
    for top in range(0, q, 64):
        for left in range(0, top + 1, 64):
            for i in range(top, min(top + 64, q)):
                for j in range(left, min(left + 64, i)):
                    S[j, i] = S[i, j]


@njit(cache=True, nogil=True, error_model="numpy")
def solve_chain(s, H, R):
    """H^-1 R in place where there is no trailing part."""
    solve_down(s, H, R)
    solve_up(s, H, R)


@njit(cache=True, nogil=True, error_model="numpy")
def solve_down(s, H, R):
    """The chain part of L^-1 R in place for R (effects, m); the trailing part is reduced."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    F, m = len(terms), R.shape[1]
    for f in range(n_chain):
        K, first, own = terms[f, 1], terms[f, 2], pairs[pair_of[f, f], 4]
        for j in range(terms[f, 0]):
            block, at = own + j * K * K, first + j * K
            for a in range(K):
                for c in range(m):
                    total = R[at + a, c]
                    for k in range(a):
                        total -= H[block + a * K + k] * R[at + k, c]
                    R[at + a, c] = total / H[block + a * K + a]
            for g in range(f + 1, F):
                p = pair_of[f, g]
                Kg, base, entry, fg = terms[g, 1], pairs[p, 4], pairs[p, 5], terms[g, 2]
                for e in range(starts[pairs[p, 6] + j], starts[pairs[p, 6] + j + 1]):
                    to = fg + levels[1, entry + e] * Kg
                    for k in range(K):
                        for a in range(Kg):
                            v = H[base + (e * K + k) * Kg + a]
                            for c in range(m):
                                R[to + a, c] -= v * R[at + k, c]


@njit(cache=True, nogil=True, error_model="numpy")
def solve_up(s, H, R):
    """L'^-1 R of the chain in place, the trailing part of R being solved already."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    F, m = len(terms), R.shape[1]
    for f in range(n_chain - 1, -1, -1):
        K, first, own = terms[f, 1], terms[f, 2], pairs[pair_of[f, f], 4]
        for j in range(terms[f, 0]):
            block, at = own + j * K * K, first + j * K
            for g in range(f + 1, F):
                p = pair_of[f, g]
                Kg, base, entry, fg = terms[g, 1], pairs[p, 4], pairs[p, 5], terms[g, 2]
                for e in range(starts[pairs[p, 6] + j], starts[pairs[p, 6] + j + 1]):
                    to = fg + levels[1, entry + e] * Kg
                    for k in range(K):
                        for a in range(Kg):
                            v = H[base + (e * K + k) * Kg + a]
                            for c in range(m):
                                R[at + k, c] -= v * R[to + a, c]
            for a in range(K - 1, -1, -1):
                for c in range(m):
                    total = R[at + a, c]
                    for k in range(a + 1, K):
                        total -= H[block + k * K + a] * R[at + k, c]
                    R[at + a, c] = total / H[block + a * K + a]


@njit(cache=True, nogil=True, error_model="numpy")
def gather_rows(s, H, Sinv, E, h, begin, end):
    """Products of L^-1 B with the trailing inverse, for levels ``begin`` to ``end`` of term h.

    As `fill_rows`, row by row; Sinv is symmetric, both triangles present. The blocks of E beside
    the chain are set to V = (L^-1 B) Sinv.
    """
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    Kh, dh = terms[h, 1], terms[h, 4]
    for f in range(n_chain):
        K, p = terms[f, 1], pair_of[f, h]
        base_h, entry_h = pairs[p, 4], pairs[p, 5]
        for r in range(begin, end):
            for t in range(turned_starts[pairs[p, 8] + r], turned_starts[pairs[p, 8] + r + 1]):
                x = turned[pairs[p, 7] + t]
                j, bx = levels[0, entry_h + x], base_h + x * K * Kh
                for v in range(bx, bx + K * Kh):
                    E[v] = 0.0
                for g in range(n_chain, len(terms)):
                    pg = pair_of[f, g]
                    Kg, dg, base_g, entry_g = terms[g, 1], terms[g, 4], pairs[pg, 4], pairs[pg, 5]
                    first, last = starts[pairs[pg, 6] + j], starts[pairs[pg, 6] + j + 1]
                    if K == 1 and Kg == 1 and Kh == 1:
                        row, total = Sinv[dh + r], 0.0
                        for y in range(first, last):
                            total += H[base_g + y] * row[dg + levels[1, entry_g + y]]
                        E[bx] += total
                    else:
                        for y in range(first, last):
                            col, by = dg + levels[1, entry_g + y] * Kg, base_g + y * K * Kg
                            for k in range(K):
                                for c in range(Kh):
                                    total = 0.0
                                    for a in range(Kg):
                                        total += H[by + k * Kg + a] * Sinv[dh + r * Kh + c, col + a]
                                    E[bx + k * Kh + c] += total


@njit(cache=True, nogil=True, error_model="numpy")
def selected_inverse(s, H, Sinv, E):
    """E = the blocks of H^-1 at the pairs of levels, `gather_rows` having been run."""
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    F = len(terms)
    for f in range(n_chain, F):
        for g in range(f, F):
            p = pair_of[f, g]
            count, base, entry = pairs[p, 3], pairs[p, 4], pairs[p, 5]
            Kf, Kg, df, dg = terms[f, 1], terms[g, 1], terms[f, 4], terms[g, 4]
            for e in range(count):
                col, row = df + levels[0, entry + e] * Kf, dg + levels[1, entry + e] * Kg
                for a in range(Kf):
                    for c in range(Kg):
                        E[base + (e * Kf + a) * Kg + c] = Sinv[row + c, col + a]
    largest = terms[:, 1].max()
    diagonal, inverse = np.empty((largest, largest)), np.empty((largest, largest))
    for f in range(n_chain - 1, -1, -1):
        K, own = terms[f, 1], pairs[pair_of[f, f], 4]
        for j in range(terms[f, 0]):
            block = own + j * K * K
            for g in range(f + 1, n_chain):  # V = (L^-1 B) H^-1, gathered in E
                p = pair_of[f, g]
                by = pairs[p, 4] + starts[pairs[p, 6] + j] * K * terms[g, 1]
                for v in range(by, by + K * terms[g, 1]):
                    E[v] = 0.0
            for g in range(f + 1, n_chain):
                pg = pair_of[f, g]
                Kg = terms[g, 1]
                by = pairs[pg, 4] + starts[pairs[pg, 6] + j] * K * Kg
                for h in range(g, F):
                    ph, pt = pair_of[f, h], pair_of[g, h]
                    Kh = terms[h, 1]
                    for x in range(starts[pairs[ph, 6] + j], starts[pairs[ph, 6] + j + 1]):
                        bx = pairs[ph, 4] + x * K * Kh
                        source = pairs[pt, 4] + up[up_of[f, g, h] + x] * Kg * Kh
                        for k in range(K):
                            for a in range(Kg):
                                for c in range(Kh):
                                    value = E[source + a * Kh + c]
                                    E[bx + k * Kh + c] += H[by + k * Kg + a] * value
                                    if g != h:
                                        E[by + k * Kg + a] += H[bx + k * Kh + c] * value
            for a in range(K):
                for c in range(K):
                    diagonal[a, c] = 1.0 if a == c else 0.0
            for g in range(f + 1, F):  # I + V (L^-1 B)', then H^-1 beside the block: -L'^-1 V
                p = pair_of[f, g]
                Kg = terms[g, 1]
                for e in range(starts[pairs[p, 6] + j], starts[pairs[p, 6] + j + 1]):
                    at = pairs[p, 4] + e * K * Kg
                    for a in range(K):
                        for c in range(K):
                            total = 0.0
                            for k in range(Kg):
                                total += E[at + a * Kg + k] * H[at + c * Kg + k]
                            diagonal[a, c] += total
                    for a in range(K - 1, -1, -1):
                        for c in range(Kg):
                            total = -E[at + a * Kg + c]
                            for k in range(a + 1, K):
                                total -= H[block + k * K + a] * E[at + k * Kg + c]
                            E[at + a * Kg + c] = total / H[block + a * K + a]
            for a in range(K):  # L^-1
                for c in range(K):
                    total = 1.0 if a == c else 0.0
                    for k in range(c, a):
                        total -= H[block + a * K + k] * inverse[k, c]
                    inverse[a, c] = total / H[block + a * K + a] if c <= a else 0.0
            for a in range(K):
                for c in range(K):
                    total = 0.0
                    for k in range(a, K):
                        for m in range(c, K):
                            total += inverse[k, a] * diagonal[k, m] * inverse[m, c]
                    E[block + a * K + c] = total


@njit(cache=True, nogil=True, error_model="numpy")
def logdet_slopes(s, lam, W, E, G):
    """G_f = half the derivative of log det H in Lambda_f, the weights held fixed.

    The sum over levels of (Z'WZ Lambda H^-1) at (fj, fj); written with the cross-products, not
    with Lambda^-1, so that it also holds where Lambda is singular.
    """
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    at = _lambda_starts(terms)
    G[:] = 0.0
    largest = terms[:, 1].max()
    sums = np.empty((largest, largest, largest, largest))
    for p in range(len(pairs)):
        f, g, count, base = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4]
        Kf, Kg = terms[f, 1], terms[g, 1]
        if Kf == 1 and Kg == 1:
            total = 0.0
            for e in range(base, base + count):
                total += W[e] * E[e]
            G[at[f]] += total * lam[at[g]]
            if f != g:
                G[at[g]] += total * lam[at[f]]
            continue
        sums[:] = 0.0  # of W[a, c] E[k, m] over the entries
        for e in range(count):
            block = base + e * Kf * Kg
            for a in range(Kf):
                for c in range(Kg):
                    w = W[block + a * Kg + c]
                    for k in range(Kf):
                        for m in range(Kg):
                            sums[a, c, k, m] += w * E[block + k * Kg + m]
        for a in range(Kf):
            for c in range(Kg):
                for k in range(Kf):
                    for m in range(Kg):
                        v = sums[a, c, k, m]
                        G[at[f] + a * Kf + k] += v * lam[at[g] + c * Kg + m]
                        if f != g:
                            G[at[g] + c * Kg + m] += v * lam[at[f] + a * Kf + k]


@njit(cache=True, nogil=True, error_model="numpy")
def outer_sums(s, A, B, G):
    """G_f += sum over levels of A_j B_j', summed over the columns of A and B (effects, m)."""
    terms = s[0]
    at = _lambda_starts(terms)
    m = A.shape[1]
    for f in range(len(terms)):
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        for j in range(J):
            for a in range(K):
                for c in range(K):
                    total = 0.0
                    for k in range(m):
                        total += A[first + j * K + a, k] * B[first + j * K + c, k]
                    G[at[f] + a * K + c] += total


@njit(cache=True, nogil=True, error_model="numpy")
def half_solve_rows(s, lam, H, index, Z, chain, trailing):
    """L^-1 m for sparse rows m of Z Lambda, whatever levels they pair.

    ``index`` (rows, F) and ``Z`` (rows, columns) are of the new rows; ``chain`` (rows,) receives
    the squared norm of the chain part, ``trailing`` (rows, q) the right-hand side left for the
    dense factor.
    """
    terms, pairs, pair_of, slots, levels, starts, turned, turned_starts, up, up_of, n_chain = s
    F, rows = len(terms), len(index)
    at = _lambda_starts(terms)
    largest = terms[:, 1].max()
    # Levels of a chain term that a row reaches: its own, and the parents of those before.
    node = np.empty((F, F + 1), dtype=np.int64)
    part = np.zeros((F, F + 1, largest))
    active = np.zeros(F, dtype=np.int64)
    trailing[:] = 0.0
    for r in range(rows):
        total = 0.0
        for f in range(F):
            K, column = terms[f, 1], terms[f, 3]
            active[f] = 1
            node[f, 0] = index[r, f]
            for c in range(K):
                value = 0.0
                for a in range(c, K):
                    value += lam[at[f] + a * K + c] * Z[r, column + a]
                part[f, 0, c] = value
                if f >= n_chain:
                    trailing[r, terms[f, 4] + index[r, f] * K + c] += value
        for f in range(n_chain):
            K, own = terms[f, 1], pairs[pair_of[f, f], 4]
            for x in range(active[f]):
                j = node[f, x]
                block = own + j * K * K
                for a in range(K):
                    value = part[f, x, a]
                    for k in range(a):
                        value -= H[block + a * K + k] * part[f, x, k]
                    part[f, x, a] = value / H[block + a * K + a]
                    total += part[f, x, a] * part[f, x, a]
                for g in range(f + 1, F):
                    p = pair_of[f, g]
                    Kg, base, entry = terms[g, 1], pairs[p, 4], pairs[p, 5]
                    for e in range(starts[pairs[p, 6] + j], starts[pairs[p, 6] + j + 1]):
                        level = levels[1, entry + e]
                        place = 0
                        if g < n_chain:
                            while place < active[g] and node[g, place] != level:
                                place += 1
                            if place == active[g]:
                                active[g] += 1
                                node[g, place] = level
                                part[g, place] = 0.0
                        for a in range(Kg):
                            value = 0.0
                            for k in range(K):
                                value += H[base + (e * K + k) * Kg + a] * part[f, x, k]
                            if g < n_chain:
                                part[g, place, a] -= value
                            else:
                                trailing[r, terms[g, 4] + level * Kg + a] -= value
        chain[r] = total


# -------------------------------------------------------------------------------- whole searches


@njit(cache=True, nogil=True, error_model="numpy")
def _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l):
    """The penalised log-density at u, up to constants, with b, eta and l filled."""
    code, y, w = model
    predict(s, lam, Z, fixed, u, b, eta)
    total = evaluate(code, y, w, eta, sigma, l)
    square = 0.0
    for j in range(len(u)):
        square += u[j, 0] * u[j, 0]
    return total - 0.5 * square


@njit(cache=True, nogil=True, error_model="numpy")
def chain_modes(s, lam, Z, fixed, model, sigma, exact, far, most, u, b, eta, l, score, W, H):
    """Conditional modes where there is no trailing part: `pirls._newton` as one compiled loop.

    ``u`` is the start and becomes the mode; b, eta, l, score, W and H are filled there.

    Returns
    -------
    status (0 converged, 1 no further growth, 2 a weight that is not positive, 3 a block that is
    not positive definite, 4 too many steps, W and H not those at the end), penalised log-density
    up to constants, log det H
    """
    n, m = len(eta), len(u)
    w, scaled, step = np.empty(n), np.empty((m, 1)), np.empty((m, 1))
    new_u, new_b, new_eta, new_l = np.empty((m, 1)), np.empty((m, 1)), np.empty(n), np.empty((4, n))
    f = _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l)
    if not math.isfinite(f):
        u[:] = 0.0
        f = _penalised(s, lam, Z, fixed, u, model, sigma, b, eta, l)
    logdet = math.nan
    for k in range(most):
        for i in range(n):
            w[i] = -l[2, i]
            if not w[i] > 0.0:
                return 2, f, logdet
        cross_products(s, Z, w, W)
        logdet = assemble(s, lam, W, H)
        if math.isnan(logdet):
            return 3, f, logdet
        pull_rows(s, lam, Z, l[1].reshape(n, 1), score, scaled)
        decrement = 0.0
        for j in range(m):
            scaled[j, 0] -= u[j, 0]
            step[j, 0] = scaled[j, 0]
        solve_chain(s, H, step)
        for j in range(m):
            decrement += scaled[j, 0] * step[j, 0]
        if decrement < exact * (1.0 + abs(f) * 1e-8):
            return 0, f, logdet
        if k == 0 and decrement > far:  # a start that may be worse than none
            new_u[:] = 0.0
            new_f = _penalised(s, lam, Z, fixed, new_u, model, sigma, new_b, new_eta, new_l)
            if new_f > f:
                u[:], b[:], eta[:], l[:], f = new_u, new_b, new_eta, new_l, new_f
                continue
        size = 1.0
        while True:
            for j in range(m):
                new_u[j, 0] = u[j, 0] + size * step[j, 0]
            new_f = _penalised(s, lam, Z, fixed, new_u, model, sigma, new_b, new_eta, new_l)
            # Close to the mode f is flat to rounding: a full Newton step is then right.
            rounding = 1e-9 * (1.0 + abs(f))
            if new_f > f or (decrement < rounding and new_f > f - rounding):
                break
            size *= 0.5
            if size < 1e-10:
                return 1, f, logdet
        u[:], b[:], eta[:], l[:], f = new_u, new_b, new_eta, new_l, new_f
    return 4, f, logdet


@njit(cache=True, nogil=True, error_model="numpy")
def chain_slopes(s, lam, Z, H, W, u, score, l, bar, pull, spread, through, moved, slopes):
    """`marginal.total_slopes` in one compiled pass, where there is no trailing part.

    ``bar`` is the derivative of the objective in H, in flat blocks, and ``pull`` that in the
    modes; the last four are filled. ``through`` is what reaches a row's eta through the modes and
    H, ``slopes`` what reaches Lambda so.
    """
    n, m = len(spread), len(u)
    C, sums, v, b = np.empty_like(bar), np.empty((m, 1)), np.empty((m, 1)), np.empty((m, 1))
    lift(s, lam, bar, C)
    quadratic_form(s, Z, C, spread)
    for i in range(n):
        through[i] = -l[3, i] * spread[i]
    pull_rows(s, lam, Z, through.reshape(n, 1), sums, v)
    for j in range(m):
        v[j, 0] += pull[j, 0]
    solve_chain(s, H, v)
    predict(s, lam, Z, np.zeros(n), v, b, moved)
    for i in range(n):
        through[i] += l[2, i] * moved[i]
    sum_rows(s, Z, through.reshape(n, 1), sums)
    logdet_slopes(s, lam, W, bar, slopes)
    for k in range(len(slopes)):
        slopes[k] *= 2.0
    outer_sums(s, sums, u, slopes)
    outer_sums(s, score, v, slopes)


@njit(cache=True, nogil=True, error_model="numpy")
def node_rows(s, lam, Z, fixed, model, sigma, points, log_terms, row_slopes):
    """Log-densities (J, N) summed by level, and slopes in eta (n, N), at nodes (J, N, K)."""
    code, y, w = model
    slots, n, (J, N, K) = s[3], len(fixed), points.shape
    u, b, eta, l = np.empty((J * K, 1)), np.empty((J * K, 1)), np.empty(n), np.empty((4, n))
    log_terms[:] = 0.0
    for q in range(N):
        for j in range(J):
            for k in range(K):
                u[j * K + k, 0] = points[j, q, k]
        predict(s, lam, Z, fixed, u, b, eta)
        evaluate(code, y, w, eta, sigma, l)
        for i in range(n):
            log_terms[slots[0, i], q] += l[0, i]
            row_slopes[i, q] = l[1, i]


@njit(cache=True, nogil=True, error_model="numpy")
def chain_laplace(s, lam, Z, H, W, u, score, l, through, slopes):
    """Derivatives of the Laplace objective at the modes of a chain, in one compiled pass.

    ``through`` receives those in the fixed part of every row's eta, ``slopes`` those in Lambda:
    `marginal.total_slopes` for the objective itself.
    """
    n, m = len(through), len(u)
    bar, none = np.empty_like(H), np.empty((0, 0))
    selected_inverse(s, H, none, bar)
    for v in range(len(bar)):
        bar[v] *= -0.5
    spread, moved = np.empty(n), np.empty(n)
    chain_slopes(
        s, lam, Z, H, W, u, score, l, bar, np.zeros((m, 1)), spread, through, moved, slopes
    )
    outer_sums(s, score, u, slopes)
    for i in range(n):
        through[i] += l[1, i]
