"""Tables that stand beside the volumes: read where they lie, or from a local copy that answers in milliseconds."""
