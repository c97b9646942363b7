"""Accuracy and cost on labeled data: running a session over samples, records on disk, comparing runs."""
