"""What was found, rendered: for a terminal, as JSON, Markdown, JUnit, and GitHub annotations."""
