"""`wise-edge evaluate` and its commands."""
