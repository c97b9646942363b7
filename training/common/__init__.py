"""What all trainings share: the loop, optimizers, checkpoints, logs and curves."""

from wise_edge.extras import check_packages

check_packages("train", "matplotlib", "torch", "yaml")
