"""What the first fit costs: the kernels are compiled once, then read from a cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks.measure import Printed, median_seconds, number

_FITS = {
    "sleepstudy": "bg.lmer('Reaction ~ Days + (Days|Subject)', data)",
    "grouseticks": "bg.glmer('TICKS ~ YEAR + (1|LOCATION)', data, family='poisson')",
}

_CODE = """
import json, time
times = [time.perf_counter()]
import bayesglmm as bg
times.append(time.perf_counter())
data = bg.load_dataset({dataset!r})
model = {model}
times.append(time.perf_counter())
fit = model.fit()
times.append(time.perf_counter())
text = str(fit)
times.append(time.perf_counter())
model.fit()
times.append(time.perf_counter())
print(json.dumps([b - a for a, b in zip(times, times[1:])]))
"""

_WHOLE = "import bayesglmm as bg; data = bg.load_dataset({dataset!r}); print({model}.fit())"


def show_cold() -> None:
    """Print the first fit from an empty cache, then from the one that it left."""
    columns = ("model", "cache", "import s", "model() s", "first fit s", "print s", "second fit s")
    printed = Printed("First fit in a fresh process", (*columns, "python to print s"), 12)
    for dataset, model in _FITS.items():
        code = _WHOLE.format(dataset=dataset, model=model)
        with tempfile.TemporaryDirectory() as cache:
            for state in ("empty", "warm"):
                steps = json.loads(run_python(_CODE.format(dataset=dataset, model=model), cache))
                whole = None
                if state == "warm":  # the process before it has filled the cache
                    whole = median_seconds(partial(run_python, code, cache), 3)
                printed.row((dataset, state, *(number(s) for s in steps), number(whole)))


def run_python(code: str, cache: str = "") -> str:
    """What a fresh process prints; with the compiled code of that folder, or the usual one."""
    own = {"NUMBA_CACHE_DIR": cache, "PYTENSOR_FLAGS": f"base_compiledir={cache}"} if cache else {}
    environment = {**os.environ, **own}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    return done.stdout
