"""Native libraries behind ctypes and low-level bindings: the CUDA runtime, llama.cpp, TensorRT's log."""
