"""Hydra configs of training runs: one YAML file a run; see `cacovid.training.run`."""
