"""One script for each question; every figure stands beside a peer's, measured in the same run."""
