"""Lightning modules, one file an architecture."""
