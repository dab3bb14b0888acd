"""Other decoders and encoders, each small, that NEDS is compared with on the same splits and the same information."""
