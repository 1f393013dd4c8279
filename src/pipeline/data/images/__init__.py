"""Images: published sets and folders of files."""
