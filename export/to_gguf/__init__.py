"""GGUF files of policies for llama.cpp: conversion, quantization, comparison with torch."""

from wise_edge.export.targets import GGUF

GGUF.check_packages()
