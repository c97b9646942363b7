"""Runtimes of named arrays: ONNX Runtime sessions and TensorRT engines."""
