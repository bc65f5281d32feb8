# mypy: disable-error-code="no-untyped-def,no-untyped-call"
"""Compiled loops over the pairs of levels of a chain term, of K columns, and a later one, of L.

``own`` is where the chain term's blocks start in H, ``base`` where those beside them do;
``level`` and ``other`` are the levels of every pair. Most terms have one column: the loops of
blocks of one number stand by themselves.
"""

from __future__ import annotations

from bayesglmm.laplace.blocks import inner


@inner
def divide(K, L, own, base, level, H):
    """Beside every block F of H, which is factorised: B becomes F^-1 B."""
    if K == 1:
        for e in range(len(level)):
            pivot = H[own + level[e]]
            for c in range(L):
                H[base + e * L + c] /= pivot
        return
    for e in range(len(level)):
        block, at = own + level[e] * K * K, base + e * K * L
        for a in range(K):
            for c in range(L):
                total = H[at + a * L + c]
                for k in range(a):
                    total -= H[block + a * K + k] * H[at + k * L + c]
                H[at + a * L + c] = total / H[block + a * K + a]


@inner
def take(K, L, M, left, right, level, target, to, H):
    """Take B_left' B_right from the blocks at ``to`` + ``target``.

    ``left`` is beside every level once, with L columns; ``right`` is at the pairs, with M.
    """
    if K == 1 and L == 1 and M == 1:
        for e in range(len(level)):
            H[to + target[e]] -= H[left + level[e]] * H[right + e]
        return
    for e in range(len(level)):
        by, bx, at = left + level[e] * K * L, right + e * K * M, to + target[e] * L * M
        for a in range(L):
            for c in range(M):
                total = 0.0
                for k in range(K):
                    total += H[by + k * L + a] * H[bx + k * M + c]
                H[at + a * M + c] -= total


@inner
def reduce_down(K, L, base, level, other, first, first_other, H, R):
    """From R (effects, m) of the later term, B' R of the chain term."""
    m = R.shape[1]
    if K == 1 and L == 1:
        for e in range(len(level)):
            v, at, to = H[base + e], first + level[e], first_other + other[e]
            for c in range(m):
                R[to, c] -= v * R[at, c]
        return
    for e in range(len(level)):
        at, to = first + level[e] * K, first_other + other[e] * L
        for k in range(K):
            for a in range(L):
                v = H[base + (e * K + k) * L + a]
                for c in range(m):
                    R[to + a, c] -= v * R[at + k, c]


@inner
def reduce_up(K, L, base, level, other, first, first_other, H, R):
    """From R (effects, m) of the chain term, B R of the later term."""
    m = R.shape[1]
    if K == 1 and L == 1:
        for e in range(len(level)):
            v, at, to = H[base + e], first + level[e], first_other + other[e]
            for c in range(m):
                R[at, c] -= v * R[to, c]
        return
    for e in range(len(level)):
        at, to = first + level[e] * K, first_other + other[e] * L
        for k in range(K):
            for a in range(L):
                v = H[base + (e * K + k) * L + a]
                for c in range(m):
                    R[at + k, c] -= v * R[to + a, c]


@inner
def gather(K, L, M, left, right, level, source, at, same, H, E):
    """E += B_left times the inverse at ``at`` + ``source``, beside ``right``; and the reverse.

    As `take`; ``same`` says that left and right are the same blocks, which are counted once.
    """
    if K == 1 and L == 1 and M == 1:
        for e in range(len(level)):
            value, by = E[at + source[e]], left + level[e]
            E[right + e] += H[by] * value
            if not same:
                E[by] += H[right + e] * value
        return
    for e in range(len(level)):
        by, bx, inverse = left + level[e] * K * L, right + e * K * M, at + source[e] * L * M
        for k in range(K):
            for a in range(L):
                for c in range(M):
                    value = E[inverse + a * M + c]
                    E[bx + k * M + c] += H[by + k * L + a] * value
                    if not same:
                        E[by + k * L + a] += H[bx + k * M + c] * value


@inner
def close(K, L, own, base, level, H, E):
    """With V = B times the inverse beside every level: V B' is added to its block.

    V becomes the inverse beside the block, -F'^-1 V.
    """
    if K == 1 and L == 1:
        for e in range(len(level)):
            V, block = E[base + e], own + level[e]
            E[block] += V * H[base + e]
            E[base + e] = -V / H[block]
        return
    for e in range(len(level)):
        block, at = own + level[e] * K * K, base + e * K * L
        for a in range(K):
            for c in range(K):
                total = 0.0
                for k in range(L):
                    total += E[at + a * L + k] * H[at + c * L + k]
                E[block + a * K + c] += total
        for a in range(K - 1, -1, -1):
            for c in range(L):
                total = -E[at + a * L + c]
                for k in range(a + 1, K):
                    total -= H[block + k * K + a] * E[at + k * L + c]
                E[at + a * L + c] = total / H[block + a * K + a]
