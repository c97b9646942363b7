"""Turns checkpoints into the graphs of a verified bundle."""
