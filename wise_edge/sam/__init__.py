"""What stages share about segmenters: the table of families, the image as a segmenter sees it, and checkpoints."""
