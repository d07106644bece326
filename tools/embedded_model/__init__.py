"""The recipe of the model inside the package: `python -m tools.embedded_model`."""
