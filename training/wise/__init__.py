"""WISE: reinforcement learning (GRPO) of a policy that learns to say the same in fewer tokens."""
