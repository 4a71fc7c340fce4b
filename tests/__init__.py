"""Tests: one module for each module, and the miniatures that they read."""
