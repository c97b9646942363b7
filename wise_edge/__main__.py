"""Lets `python -m wise_edge` do what the `wise-edge` script does."""

from __future__ import annotations

from wise_edge.cli.main import run_main

if __name__ == "__main__":
    run_main()
