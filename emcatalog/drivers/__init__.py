"""Intake drivers: the only place that imports Intake."""

import warnings

# Intake 2.0.9 warns of a shell command for every parameter that is a string, whatever it holds
# (intake/catalog/utils.py, expand_defaults); two such lines would greet everybody who opens an entry.
warnings.filterwarnings("ignore", message="Shell command not executed due to getshell=False", category=UserWarning)
