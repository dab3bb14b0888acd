"""What one would use instead of neds-rt, as processes of their own on the same streams (`neds-rt bench peers`)."""
