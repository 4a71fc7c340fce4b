"""Intake drivers: the only place that imports Intake."""
