"""The regression gate: the working tree against a commit, operation by operation, in turns within one run."""
