"""What an entry is, for a person: one module for each driver, and one that lays it out. Asks no network."""
