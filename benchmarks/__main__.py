"""Run the benchmarks: ``python -m benchmarks [ml] [nuts]``."""

import argparse
import importlib
import importlib.util
import sys
import time
from itertools import takewhile

PARTS = {
    "ml": "maximum likelihood: time to the estimates",
    "nuts": "NUTS: effective draws per second, the whole process included",
}


def main() -> None:
    """Run the parts named on the command line, or every part that is present.

    A part is a module with ``main(arguments)``: what follows the name of a single part is for it.
    """
    words = sys.argv[1:]
    named = list(takewhile(lambda word: not word.startswith("-"), words))
    options = words[len(named) :]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=f"options of one part: python -m benchmarks {next(iter(PARTS))} --help",
    )
    parser.add_argument("part", nargs="*", help=f"which to run: {', '.join(PARTS)} (default: all)")
    asked: list[str] = parser.parse_args(named if len(named) == 1 else words).part
    if unknown := [part for part in asked if part not in PARTS]:
        parser.error(f"no benchmark is called {unknown[0]!r}; there are: {', '.join(PARTS)}")

    present = [part for part in asked or PARTS if importlib.util.find_spec(f"benchmarks.{part}")]
    for part in asked:
        if part not in present:
            print(f"benchmarks/{part}.py is not here yet.")
    if not present:
        files = " or ".join(f"benchmarks/{part}.py" for part in asked or PARTS)
        print(f"Nothing to run: add {files} with a function main(arguments).")
        return

    for part in present:
        print(f"== {part} == {PARTS[part]}", flush=True)
        start = time.perf_counter()
        importlib.import_module(f"benchmarks.{part}").main(options)
        print(f"== {part} took {time.perf_counter() - start:.1f} s\n", flush=True)


if __name__ == "__main__":
    main()
