"""Accuracy and cost on labeled data: running a session on samples, keeping records on disk, comparing runs."""
