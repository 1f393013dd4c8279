"""What a person sees of a run: plots as image files and the table in the terminal."""
