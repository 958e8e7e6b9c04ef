"""What a mapping compiles to: SQL, Python, parity, documentation."""
