"""What an export starts from: the policy's checkpoint, its adapter, calibration samples, reference answers."""

from wise_edge.extras import check_packages

check_packages("export", "torch", "transformers", "safetensors")
