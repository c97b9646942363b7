"""GGUF files of policies for llama.cpp: conversion, quantization, comparison with torch."""
