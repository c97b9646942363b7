"""What stages share about policies: prompts, answers, the image as a policy sees it, and checkpoints."""
