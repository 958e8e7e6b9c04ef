"""What a migration will do, found out without changing anything."""
