"""Policy backends: an image and a query in, a completion out."""
