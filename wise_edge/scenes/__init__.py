"""Deterministic synthetic scenes with exact masks and queries of five kinds."""
