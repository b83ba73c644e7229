"""What the detector is made of."""
