"""ONNX graphs of policies and segmenters: tracing, lower precision, comparison with torch."""

from wise_edge.export.targets import ONNX

ONNX.check_packages()
