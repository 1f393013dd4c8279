"""Many runs from one command: sweeps with Optuna, and plain multiruns. The only room that imports Optuna."""
