"""Mask backends: an image, a box and points in, a mask out."""
