"""The command line: `hf-gradalign COMMAND`, one module per command. `scripts/` has the same commands for a clone."""
