"""Speed, measured on this machine and told as ratios within one run.

``python -m benchmarks`` runs every part that is present; ``python -m benchmarks ml`` one.
A part is a module of this package with a function ``main() -> None``.
"""
