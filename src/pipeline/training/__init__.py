"""Building the trainer, and what runs beside the training step."""
