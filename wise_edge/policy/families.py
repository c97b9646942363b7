"""The families of policies, apart from `PolicySpec` so that `wise-edge --help` imports nothing heavy."""

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
"""Architectures, by transformers' names."""
