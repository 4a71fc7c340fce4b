"""One reader for each stored form, all behind ``Volume``."""
