"""What a training will need, by arithmetic from its recipe and the model's config: no weights are loaded."""

from wise_edge.extras import check_packages

check_packages("train", "transformers", "torch")
