"""Runs the `wise-edge` command line as `python -m wise_edge`."""

from __future__ import annotations

from wise_edge.cli.main import run_main

if __name__ == "__main__":
    run_main()
