"""Answers of a policy: their forms as data, the frame of their numbers, writing and reading them."""
