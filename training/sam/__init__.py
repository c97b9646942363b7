"""Training of a small Segment Anything model from scratch."""
