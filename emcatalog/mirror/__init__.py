"""The sparse mirror: for each source array one Zarr v3 array of its size, filled only where somebody has read."""
