"""The model and its science: sessions, masks, transformer, linear decoders, training, checkpoints."""

NEDS_RT = True
