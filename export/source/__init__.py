"""What an export starts from: the policy's checkpoint, its adapter, calibration samples, reference answers."""
