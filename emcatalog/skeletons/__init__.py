"""Skeletons of neurons: a folder of them, read by id, each as a table of nodes in nm."""
