"""The roles of a bundle's artifacts. This module imports nothing: `wise-edge --help` reads it."""

from __future__ import annotations

VISION, DECODER = ("policy.vision", "policy.decoder")
"""The policy's ONNX graphs: the vision tower, whose role ends in a grid where there are several, and the language
model. ONNX Runtime runs them, and TensorRT's engines are built from them."""
MASK_GRAPHS = ("sam.encoder", "sam.decoder")
"""The segmenter's."""
MEMORY_GRAPHS = ("sam.memory_attention", "sam.memory_encoder")
"""Those of a segmenter that follows objects in videos, in addition."""
GRAPHS = (VISION, DECODER, *MASK_GRAPHS)
"""All ONNX graphs of a bundle whose policy sees squares."""
EMBEDDING, TOKENIZER = "policy.embedding", "policy.tokenizer"
"""The token embedding, which is no graph, and the tokenizer's file."""
GGUF_TEXT, GGUF_VISION = "policy.gguf", "policy.mmproj"
"""The two files that llama.cpp runs."""
PLAN_ROLE, PLAN_FILE = "engines.plan", "engines.json"
"""How the graphs become engines; a bundle that engines may be built for has it."""
EDGELLM_FOLDER = "policy.edgellm"
"""Folder with the checkpoint that TensorRT Edge-LLM builds engines from; roles in it are paths."""


def engine_role(graph: str, engine_set: str) -> str:
    """Return the role of a graph's engine; that of its sidecar has ".json" appended."""
    return f"{graph}.engine.{engine_set}"


def engine_file(graph: str, engine_set: str) -> str:
    """Return the file name of a graph's engine; that of its sidecar has ".json" appended."""
    return f"{graph}.{engine_set}.engine"


def mask_graphs(*, memory: bool) -> tuple[str, ...]:
    """Return the graphs of a segmenter with or without memory."""
    return (*MASK_GRAPHS, *MEMORY_GRAPHS) if memory else MASK_GRAPHS
