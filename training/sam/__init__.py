"""Training of a small Segment Anything model from scratch."""

from wise_edge.extras import check_packages

check_packages("train", "safetensors", "segment_anything", "torch")
