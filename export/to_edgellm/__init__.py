"""Checkpoints for NVIDIA's TensorRT Edge-LLM."""
