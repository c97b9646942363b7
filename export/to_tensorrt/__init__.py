"""TensorRT engines from a bundle's ONNX graphs."""
