"""From the common-sense baseline to the tuned model, one rung after another."""
