"""Supervised training of a small policy from scratch."""
