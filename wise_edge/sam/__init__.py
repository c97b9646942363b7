"""What stages share about segmenters: the families, the image as a segmenter sees it, and checkpoints."""
