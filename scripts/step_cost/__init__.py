"""What `benchmark_step.py` measures, and how."""

import hf_gradalign  # noqa: F401  (makes torchaudio importable before transformers looks for it)
