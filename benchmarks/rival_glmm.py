"""The package `glmm` on one model: median seconds after a warm-up, and the log-likelihood.

``python rival_glmm.py REQUEST.json`` prints JSON. It stands alone, so that another Python than
ours can run it. Likelihood-ratio tables are switched off: they would add refits of smaller models.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
import warnings
from pathlib import Path
from typing import Any


def main() -> None:
    """Read the request, print the answer."""
    glmm: Any = importlib.import_module("glmm")
    pandas: Any = importlib.import_module("pandas")
    warnings.simplefilter("ignore")
    case: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    levels: dict[str, list[str]] = case["levels"]
    data = pandas.read_csv(case["csv"], dtype=dict.fromkeys(levels, str))
    for name, known in levels.items():
        data[name] = pandas.Categorical(data[name], categories=known)
    options: dict[str, Any] = {"nagq": case["nagq"], "anova_test": "Wald"}
    if case["family"] == "gaussian":
        options["reml"] = False

    times: list[float] = []
    loglik = 0.0
    warm = case["runs"] > 1
    for _ in range(case["runs"] + warm):
        start = time.perf_counter()
        loglik = glmm.fit(data, case["formula"], case["family"], **options).loglik
        times.append(time.perf_counter() - start)
    print(json.dumps({"seconds": statistics.median(times[warm:]), "loglik": loglik}))


if __name__ == "__main__":
    main()
