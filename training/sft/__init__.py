"""Supervised training of a small policy from scratch."""

from wise_edge.extras import check_packages

check_packages("train", "safetensors", "torch", "transformers")
