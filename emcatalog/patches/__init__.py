"""Patches of volumes to train on, as arrays: where they lie, how they are turned, what is predicted from them."""
