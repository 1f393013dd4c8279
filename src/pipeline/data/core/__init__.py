"""What all data sets share: the Spec, splits in memory, the loader, the data module, encoders, baselines."""
