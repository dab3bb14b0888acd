"""The model and its science: sessions, masks, transformer, the linear decoder, training, checkpoints."""

NEDS_RT = True
