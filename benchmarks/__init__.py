"""Speed and memory of precis against what one would otherwise use, measured interleaved in one run.

    python -m benchmarks [name …]

Each module has `rows() -> list[dict]`: what was compared, the two medians, their ratio with its interval.
"""
