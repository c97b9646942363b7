"""Power and energy: the sensors of a device, sampling them, and the energy of a window."""
