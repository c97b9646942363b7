"""Checkpoints for NVIDIA's TensorRT Edge-LLM."""

from wise_edge.export.targets import EDGELLM

EDGELLM.check_packages()
