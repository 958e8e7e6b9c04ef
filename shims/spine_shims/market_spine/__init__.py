"""The deprecated tasks of market-spine (seed 003), as shims under their old names."""
