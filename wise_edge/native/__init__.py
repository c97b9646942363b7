"""Third-party libraries, each opened in one place: CUDA, llama.cpp, ONNX Runtime, TensorRT's log, transformers."""
