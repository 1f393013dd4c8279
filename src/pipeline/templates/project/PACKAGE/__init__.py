"""PROJECT."""
