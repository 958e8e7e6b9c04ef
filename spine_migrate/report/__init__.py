"""From results to what people and machines read: text, JSON and progress."""
