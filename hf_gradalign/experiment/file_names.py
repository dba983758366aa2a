"""Names of what a run writes, apart from what transformers names."""

RUNS_DIR = "runs"
ARGUMENTS_NAME = "run_arguments.json"
FINGERPRINT_NAME = "run_fingerprint.json"
RESULTS_NAME = "all_results.json"
REPLACED_DIR = "_replaced"
"""Where `--overwrite` puts what a run replaces until the run is complete; not pushed, as its underscore says."""
