"""The mapping language: a lens from a legacy row to a target row, and its compiler."""
