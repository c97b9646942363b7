"""Runs a bundle on a device: a picture and a query in, a mask and its cost out."""
