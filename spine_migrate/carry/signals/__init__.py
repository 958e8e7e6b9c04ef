"""What a run looks at to see whether the server has room for it: each signal one class with its reading query."""
