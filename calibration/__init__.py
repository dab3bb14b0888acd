"""Collect a session, fine-tune, judge, swap in, roll back."""

NEDS_RT = True
