"""What a policy and a segmenter need on a device, and what an expert would make of them there; `wise-edge setup`."""
