"""Runs a bundle on a device: an image and a query in, a mask and its cost out."""
