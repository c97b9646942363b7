"""The bundle: its manifest, reading and writing it, its model card, and the engines in it."""
