"""What every training shares: the loop, optimizers, recipes as dataclasses, checkpoints, logs and curves."""
