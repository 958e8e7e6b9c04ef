"""Proof that what was moved is what was there, or the rows, fields and rules where it is not."""
