"""The way over to the new tables: the switch and the way back, and what becomes of the legacy side."""
