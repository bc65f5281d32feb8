"""Other NUTS implementations by name, through PyMC: for comparison, and for GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bayesglmm.errors import ChoiceError
from bayesglmm.nuts.chain import STATISTICS
from bayesglmm.nuts.options import NUTS
from bayesglmm.nuts.run import cores_of
from bayesglmm.nuts.target import Array

# Packages that each sampler needs beside PyMC.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    "pymc": (),
    "numpyro": ("jax", "numpyro"),
    "blackjax": ("jax", "blackjax"),
}
_NAMES = {**STATISTICS, **{new: new for new in STATISTICS.values()}}


def check_installed(sampler: str) -> None:
    """Refuse a sampler whose packages are not there.

    Raises
    ------
    ChoiceError
        With what to install.
    """
    missing = [name for name in _NEEDS[sampler] if find_spec(name) is None]
    if missing:
        raise ChoiceError(
            f"sampler={sampler!r} needs {' and '.join(missing)}, not installed here: pip install "
            f'{" ".join(missing)}, or use sampler="nutpie"'
        )


def _chain_method(chains: int) -> str:
    """Each chain on a device of its own (a processor counts as many), or all on the one GPU."""
    from pymc.sampling import jax  # not JAX's own, which would see one processor only

    return "parallel" if jax.jax.local_device_count() >= chains else "vectorized"


def sample_other(
    pymc_model: Any, options: NUTS, seed: int, names: list[str]
) -> tuple[dict[str, Array], dict[str, NDArray[Any]]]:
    """Named variables and statistics, (chains, draws, ...), by ``pm.sample``.

    Raises
    ------
    ChoiceError
        If BlackJAX is too new for PyMC.
    """
    import pymc as pm

    settings: dict[str, Any] = {"target_accept": options.target_accept}
    progress = options.progress
    if options.sampler != "pymc":
        settings["chain_method"] = _chain_method(options.chains)
        if options.sampler == "blackjax" and settings["chain_method"] == "vectorized":
            progress = False  # JAX cannot print from within vmap
    try:
        with pymc_model:
            tree = pm.sample(
                draws=options.draws,
                tune=options.tune,
                chains=options.chains,
                cores=cores_of(options),
                random_seed=seed,
                nuts_sampler=options.sampler,
                nuts=settings,
                progressbar=progress,
                quiet=not options.progress,
                compute_convergence_checks=False,
            )
    except TypeError as error:
        # BlackJAX 1.6 knows no progress_bar=, which PyMC (6.4 still) hands it.
        if options.sampler != "blackjax" or "progress_bar" not in str(error):
            raise
        raise ChoiceError(
            'sampler="blackjax": this version of PyMC cannot use this version of BlackJAX: '
            "pip install 'blackjax<1.6', or use sampler=\"numpyro\""
        ) from error
    posterior, statistics = tree["posterior"], tree["sample_stats"]
    return (
        {name: np.asarray(posterior[name].values, dtype=np.float64) for name in names},
        {
            new: np.asarray(statistics[old].values)
            for old, new in _NAMES.items()
            if old in statistics.data_vars
        },
    )
