"""How a model is trained: the step, the trainer around it, and what runs beside them."""
