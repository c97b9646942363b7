"""Torch modules rewritten for graphs: the weights of their libraries, less memory and time."""
