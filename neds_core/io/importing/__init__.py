"""From a source as a lab has it to a `Session`: what was found, what is taken of it, and the grid of bins."""
