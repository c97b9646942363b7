"""Killing the training of a tiny segmenter, whose checkpoints cut the windows of its log."""

from __future__ import annotations

from trained import scenario

SCENARIO = scenario(
    "sam",
    "sam",
    """
stage: sam
steps: 8
decay_steps: 2
warmup_steps: 2
scenes_per_step: 2
model: {input_size: 56, encoder_dim: 16, encoder_depth: 2, global_attention: [1], prompt_dim: 16, decoder_heads: 2}
bfloat16: false
log_every: 3
checkpoint_every: 2
validate_every: 4
validate_scenes: 2
final_scenes: 2
""",
)
