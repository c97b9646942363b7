"""TensorRT engines from a bundle's ONNX graphs.

No package is checked here: `wise-edge build` runs on devices that have TensorRT and nothing that exports.
"""
