"""Killing the training of a tiny policy, whose checkpoints cut its pools of batches and the windows of its log."""

from __future__ import annotations

from trained import scenario

SCENARIO = scenario(
    "sft",
    "policy",
    """
stage: sft
model:
  hidden_size: 64
  num_layers: 3
  num_heads: 2
  num_kv_heads: 1
  intermediate_size: 64
  vision_hidden_size: 64
  vision_depth: 2
  vision_heads: 2
  vision_intermediate_size: 64
  vision_fullatt: [1]
phases:
  - {name: dense, steps: 2, dense_weight: 1.0}
  - {name: list, steps: 3, mixture: {list: 1.0}, dense_weight: 0.5}
  - {name: mix, steps: 3, mixture: {list: 1.0, answer: 1.0, wise: 1.0}, blend_steps: 2}
batch_size: 3
pool_batches: 4
tokenizer_samples: 60
bfloat16: false
log_every: 3
checkpoint_every: 2
validate_every: 4
validate_samples: 2
final_samples: 3
max_new_tokens: 6
""",
)
