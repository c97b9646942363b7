"""wise-edge on a robot: one node without a transport, and thin adapters to what carries its frames and results."""
