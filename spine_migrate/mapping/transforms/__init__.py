"""The closed set of transforms; a field's pipeline applies them in the order in which they are listed here."""
