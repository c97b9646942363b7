"""Training of the policy and of the segmenter, each from a short YAML recipe."""
