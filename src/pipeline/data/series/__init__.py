"""Series over time: forecasts of the steps ahead."""
