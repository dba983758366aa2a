"""Models, steps and measurements of `benchmark_step.py`."""

import hf_gradalign  # noqa: F401  (makes torchaudio importable before transformers looks for it)
