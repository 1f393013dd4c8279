"""What a trained model is worth: outputs, statistics, explanations."""
