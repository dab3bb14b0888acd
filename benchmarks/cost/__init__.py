"""Cost of a decoding step and of a training step, beside torch and the floor."""
