"""Distillation: a light image encoder learns to answer as a segmenter's own does, on pictures without labels."""

from wise_edge.extras import check_packages

check_packages("train", "safetensors", "segment_anything", "torch")
check_packages("segmenters", "mobile_sam", "timm")
