"""Food orders."""
