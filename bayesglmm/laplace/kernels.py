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

from bayesglmm.laplace import blocks, couplings

# ------------------------------------------------------------------------------ over the rows


@njit(cache=True, nogil=True, error_model="numpy")
def add_effects(s, Z, fixed, b, eta):
    """eta = fixed + Z b."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    n = len(eta)
    for i in range(n):
        eta[i] = fixed[i]
    for f in range(len(terms)):
        index = slots[pairs[pair_of[f, f], 2]]
        blocks.add_effects(terms[f, 1], Z, terms[f, 3], index, terms[f, 2], b, eta)


@njit(cache=True, nogil=True, error_model="numpy")
def sum_rows(s, Z, V, out):
    """out = Z'V for V (n, m): (effects, m)."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    out[:] = 0.0
    for f in range(len(terms)):
        index = slots[pairs[pair_of[f, f], 2]]
        blocks.sum_rows(terms[f, 1], Z, terms[f, 3], index, terms[f, 2], V, out)


@njit(cache=True, nogil=True, error_model="numpy")
def cross_products(s, Z, w, W):
    """W = Z' diag(w) Z at every pair of levels that meet."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    n = len(w)
    W[:] = 0.0
    for p in range(len(pairs)):
        f, g, line, base = pairs[p, 0], pairs[p, 1], pairs[p, 2], pairs[p, 4]
        Kf, Kg, cf, cg = terms[f, 1], terms[g, 1], terms[f, 3], terms[g, 3]
        if f == g:
            blocks.cross_products(Kf, Z, cf, slots[line], base, terms[f, 0], w, W)
        elif Kf == 1 and Kg == 1:
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
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    n = len(out)
    out[:] = 0.0
    for p in range(len(pairs)):
        f, g, line, base = pairs[p, 0], pairs[p, 1], pairs[p, 2], pairs[p, 4]
        Kf, Kg, cf, cg = terms[f, 1], terms[g, 1], terms[f, 3], terms[g, 3]
        if f == g:
            blocks.quadratic_form(Kf, Z, cf, slots[line], base, C, out)
            continue
        for i in range(n):
            at = base + slots[line, i] * Kf * Kg
            total = 0.0
            for a in range(Kf):
                inner = 0.0
                for c in range(Kg):
                    inner += C[at + a * Kg + c] * Z[i, cg + c]
                total += Z[i, cf + a] * inner
            out[i] += 2.0 * total


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def predict(s, lam, Z, fixed, u, b, eta):
    """b = Lambda u and eta = fixed + Z b, for u (effects, 1)."""
    scale_effects(s, lam, u, b)
    add_effects(s, Z, fixed, b, eta)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
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
def _widest(terms):
    out = 0
    for f in range(len(terms)):
        out = max(out, terms[f, 1])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
def scale_effects(s, lam, U, B):
    """B = Lambda U, level by level, for U (effects, m)."""
    terms = s[0]
    at = _lambda_starts(terms)
    for f in range(len(terms)):
        blocks.scale_effects(terms[f, 1], terms[f, 0], terms[f, 2], lam, at[f], U, B)


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
    for f in range(len(terms)):
        blocks.scale_sums(terms[f, 1], terms[f, 0], terms[f, 2], lam, at[f], R, out)


@njit(cache=True, nogil=True, error_model="numpy")
def moved_columns(s, lam, entries, u, score, out):
    """How b = Lambda u moves with entries (term, row, column) of Lambda: (effects, entries).

    Directly, and through the modes as far as the score (effects, 1) pulls them.
    """
    terms = s[0]
    at = _lambda_starts(terms)
    out[:] = 0.0
    for k in range(len(entries)):
        f, row, column = entries[k]
        J, K, first = terms[f, 0], terms[f, 1], terms[f, 2]
        for j in range(J):
            block = first + j * K
            out[block + row, k] += u[block + column, 0]
            for a in range(column, K):
                out[block + a, k] += score[block + row, 0] * lam[at[f] + a * K + column]


@njit(cache=True, nogil=True, error_model="numpy")
def moment_equations(s, W, zr, system, moments, own):
    """What the variances of columns of Z say of the sums of squares of zr = Z'r (effects, 1).

    ``system`` (columns + 1, columns + 1) += the sums of squares of Z'WZ between columns, and
    last the traces, beside the residual variance; ``moments`` += the sums of squares; ``own``
    (effects,) is the diagonal of Z'WZ.
    """
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    last = len(system) - 1
    for p in range(len(pairs)):
        f, g, count, base = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4]
        Kf, Kg, row, column = terms[f, 1], terms[g, 1], terms[f, 3], terms[g, 3]
        for a in range(Kf):
            for c in range(Kg):
                total = 0.0
                for e in range(count):
                    total += W[base + (e * Kf + a) * Kg + c] ** 2
                system[row + a, column + c] += total
                if f != g:
                    system[column + c, row + a] += total
    for f in range(len(terms)):
        J, K, first, column = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
        base = pairs[pair_of[f, f], 4]
        for j in range(J):
            for a in range(K):
                effect = first + j * K + a
                own[effect] = W[base + (j * K + a) * K + a]
                system[column + a, last] += own[effect]
                moments[column + a] += zr[effect, 0] ** 2
    for c in range(last):
        system[last, c] = system[c, last]


@njit(cache=True, nogil=True, error_model="numpy")
def moment_errors(s, entries, own, relative, theta, error):
    """The entries (term, row, column) of Lambda for sds of the root of ``relative`` (columns,).

    With about a standard error of each, from ``own`` of `moment_equations`.
    """
    terms = s[0]
    for k in range(len(entries)):
        f, row, column = entries[k]
        J, K, first, place = terms[f, 0], terms[f, 1], terms[f, 2], terms[f, 3]
        total = 0.0
        for j in range(J):
            at = first + j * K
            a, b = own[at + row], own[at + column]
            spread = (1.0 + relative[place + row] * a) * (1.0 + relative[place + column] * b)
            total += a * b / spread
        total *= relative[place + column]
        theta[k] = 0.0
        if row == column:
            theta[k] = math.sqrt(relative[place + row])
            total *= 2.0
        error[k] = 1.0 / math.sqrt(max(total, 1e-300))


@njit(cache=True, nogil=True, error_model="numpy")
def multiply_blocks(s, W, B, out):
    """out = (symmetric matrix with blocks W) B for B (effects, m)."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
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
    """H = A_f' W A_g for every block of a symmetric W, for any K_f x K_f matrices A_f."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    at = _lambda_starts(terms)
    largest = _widest(terms)
    half = np.empty((largest, largest))
    for p in range(len(pairs)):
        f, g, count, base = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4]
        Kf, Kg = terms[f, 1], terms[g, 1]
        if f == g:
            blocks.congruence(Kf, count, base, lam, at[f], W, H)
            continue
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
def eliminate(s, H):
    """Add the identity to H and eliminate the chain in place.

    The trailing blocks are left as they are: see `subtract_squares`. Returns log det of the
    chain, or NaN if a block is not positive definite.
    """
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
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
        logdet += blocks.factorise(K, terms[f, 0], own, H)
        if math.isnan(logdet):
            return logdet
        for g in range(f + 1, F):  # L^-1 B
            pg = pair_of[f, g]
            level = levels[0, pairs[pg, 5] : pairs[pg, 5] + pairs[pg, 3]]
            couplings.divide(K, terms[g, 1], own, pairs[pg, 4], level, H)
        for g in range(f + 1, n_chain):  # what its levels take from later chain levels
            for h in range(g, F):
                ph = pair_of[f, h]
                level = levels[0, pairs[ph, 5] : pairs[ph, 5] + pairs[ph, 3]]
                couplings.take(
                    *(K, terms[g, 1], terms[h, 1], pairs[pair_of[f, g], 4], pairs[ph, 4], level),
                    *(up[up_of[f, g, h] :], pairs[pair_of[g, h], 4], H),
                )
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def fill_blocks(s, H, S):
    """The trailing blocks of H into the lower triangle of the dense S, before elimination."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
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
def take(cross, H, X):
    """X = the values of the flat H between chain and trailing terms, row by row."""
    place = cross[2]
    for x in range(len(X)):
        X[x] = H[place[x]]


@njit(cache=True, nogil=True, error_model="numpy")
def put(cross, X, H):
    """The inverse of `take`."""
    place = cross[2]
    for x in range(len(X)):
        H[place[x]] = X[x]


@njit(cache=True, nogil=True, error_model="numpy")
def subtract_squares(cross, X, S, begin, end):
    """S -= X'X in rows ``begin`` to ``end`` of its lower triangle, for sparse X.

    A row of S stays in cache while all rows of X that meet it pass. Rows are independent, so that
    ranges of them may run in parallel.
    """
    starts, columns, place, turned_starts, turned_rows, turned = cross
    for r in range(begin, end):
        row = S[r]
        for t in range(turned_starts[r], turned_starts[r + 1]):
            x = turned[t]
            value = X[x]
            for y in range(starts[turned_rows[t]], x + 1):
                row[columns[y]] -= value * X[y]


@njit(cache=True, nogil=True, error_model="numpy")
def times_symmetric(cross, X, S, V, begin, end):
    """V = X S where X has values, for rows ``begin`` to ``end`` of S, both triangles present.

    As `subtract_squares`, row by row.
    """
    starts, columns, place, turned_starts, turned_rows, turned = cross
    for r in range(begin, end):
        row = S[r]
        for t in range(turned_starts[r], turned_starts[r + 1]):
            j = turned_rows[t]
            total = 0.0
            for y in range(starts[j], starts[j + 1]):
                total += X[y] * row[columns[y]]
            V[turned[t]] = total


@njit(cache=True, nogil=True, error_model="numpy")
def spread(cross, X, dense):
    """The sparse X as a dense (chain effects, q) array."""
    starts, columns = cross[0], cross[1]
    dense[:] = 0.0
    for j in range(len(dense)):
        for y in range(starts[j], starts[j + 1]):
            dense[j, columns[y]] = X[y]


@njit(cache=True, nogil=True, error_model="numpy")
def collect(cross, dense, X):
    """The inverse of `spread`: the values of a dense array where X has some."""
    starts, columns = cross[0], cross[1]
    for j in range(len(dense)):
        for y in range(starts[j], starts[j + 1]):
            X[y] = dense[j, columns[y]]


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
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


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def solve_chain(s, H, R):
    """H^-1 R in place where there is no trailing part."""
    solve_down(s, H, R)
    solve_up(s, H, R)


@njit(cache=True, nogil=True, error_model="numpy")
def solve_down(s, H, R):
    """The chain part of L^-1 R in place for R (effects, m); the trailing part is reduced."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    F = len(terms)
    for f in range(n_chain):
        K, first, own = terms[f, 1], terms[f, 2], pairs[pair_of[f, f], 4]
        blocks.solve_lower(K, terms[f, 0], own, first, H, R)
        for g in range(f + 1, F):
            p = pair_of[f, g]
            entries = levels[:, pairs[p, 5] : pairs[p, 5] + pairs[p, 3]]
            couplings.reduce_down(
                *(K, terms[g, 1], pairs[p, 4], entries[0], entries[1], first, terms[g, 2], H, R)
            )


@njit(cache=True, nogil=True, error_model="numpy")
def solve_up(s, H, R):
    """L'^-1 R of the chain in place, the trailing part of R being solved already."""
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    F = len(terms)
    for f in range(n_chain - 1, -1, -1):
        K, first, own = terms[f, 1], terms[f, 2], pairs[pair_of[f, f], 4]
        for g in range(f + 1, F):
            p = pair_of[f, g]
            entries = levels[:, pairs[p, 5] : pairs[p, 5] + pairs[p, 3]]
            couplings.reduce_up(
                *(K, terms[g, 1], pairs[p, 4], entries[0], entries[1], first, terms[g, 2], H, R)
            )
        blocks.solve_upper(K, terms[f, 0], own, first, H, R)


@njit(cache=True, nogil=True, error_model="numpy")
def selected_inverse(s, H, Sinv, E):
    """E = the blocks of H^-1 at the pairs of levels.

    Those beside the chain hold X Sinv before, X being the blocks L^-1 B (see `times_symmetric`).
    """
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
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
    for f in range(n_chain - 1, -1, -1):
        J, K, own = terms[f, 0], terms[f, 1], pairs[pair_of[f, f], 4]
        for v in range(own, own + J * K * K):
            E[v] = 0.0
        for g in range(f + 1, n_chain):
            p = pair_of[f, g]
            for v in range(pairs[p, 4], pairs[p, 4] + J * K * terms[g, 1]):
                E[v] = 0.0
        for g in range(f + 1, n_chain):  # V = (L^-1 B) H^-1, gathered in E
            for h in range(g, F):
                ph = pair_of[f, h]
                level = levels[0, pairs[ph, 5] : pairs[ph, 5] + pairs[ph, 3]]
                couplings.gather(
                    *(K, terms[g, 1], terms[h, 1], pairs[pair_of[f, g], 4], pairs[ph, 4], level),
                    *(up[up_of[f, g, h] :], pairs[pair_of[g, h], 4], g == h, H, E),
                )
        for g in range(f + 1, F):  # I + V (L^-1 B)', then H^-1 beside the block
            p = pair_of[f, g]
            level = levels[0, pairs[p, 5] : pairs[p, 5] + pairs[p, 3]]
            couplings.close(K, terms[g, 1], own, pairs[p, 4], level, H, E)
        blocks.invert(K, J, own, H, E)


@njit(cache=True, nogil=True, error_model="numpy")
def logdet_slopes(s, lam, W, E, G):
    """G_f = half the derivative of log det H in Lambda_f, the weights held fixed.

    The sum over levels of (Z'WZ Lambda H^-1) at (fj, fj); written with the cross-products, not
    with Lambda^-1, so that it also holds where Lambda is singular.
    """
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    at = _lambda_starts(terms)
    G[:] = 0.0
    largest = _widest(terms)
    sums = np.empty((largest, largest, largest, largest))
    for p in range(len(pairs)):
        f, g, count, base = pairs[p, 0], pairs[p, 1], pairs[p, 3], pairs[p, 4]
        Kf, Kg = terms[f, 1], terms[g, 1]
        if f == g:
            blocks.logdet_slopes(Kf, count, base, lam, at[f], W, E, G)
            continue
        if Kf == 1 and Kg == 1:
            total = 0.0
            for e in range(base, base + count):
                total += W[e] * E[e]
            G[at[f]] += total * lam[at[g]]
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
                        G[at[g] + c * Kg + m] += v * lam[at[f] + a * Kf + k]


@njit(cache=True, nogil=True, error_model="numpy")
def outer_sums(s, A, B, G):
    """G_f += sum over levels of A_j B_j', summed over the columns of A and B (effects, m)."""
    terms = s[0]
    at = _lambda_starts(terms)
    for f in range(len(terms)):
        blocks.outer_sums(terms[f, 1], terms[f, 0], terms[f, 2], A, B, at[f], G)


@njit(cache=True, nogil=True, error_model="numpy")
def half_solve_rows(s, lam, H, index, Z, chain, trailing):
    """L^-1 m for sparse rows m of Z Lambda, whatever levels they pair.

    ``index`` (rows, F) and ``Z`` (rows, columns) are of the new rows; ``chain`` (rows,) receives
    the squared norm of the chain part, ``trailing`` (rows, q) the right-hand side left for the
    dense factor.
    """
    terms, pairs, pair_of, slots, levels, starts, up, up_of, cross, n_chain = s
    F, rows = len(terms), len(index)
    at = _lambda_starts(terms)
    largest = _widest(terms)
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
