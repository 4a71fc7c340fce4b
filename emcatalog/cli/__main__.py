"""``python -m emcatalog.cli`` does what ``emcatalog`` does."""

from emcatalog.cli import main

main()
