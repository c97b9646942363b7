"""ONNX graphs of policies and segmenters: tracing, lower precision, comparison with torch."""
