"""Training of the policy and of the mask model, each from a short YAML recipe."""
