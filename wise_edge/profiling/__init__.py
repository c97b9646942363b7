"""What a mask costs on a device: measuring, reporting, comparing and estimating it."""
