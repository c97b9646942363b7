"""The memory of segmenters that follow objects in videos: its description, its names and its checkpoints."""
