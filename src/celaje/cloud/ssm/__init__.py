"""SSM: the public parameters that name images."""
