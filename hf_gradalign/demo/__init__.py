"""A page for a browser that judges recordings with trained detectors, and its copy as a Hugging Face Space."""

from typing import TYPE_CHECKING

from hf_gradalign.utils.lazy_imports import lazy_names

if TYPE_CHECKING:
    from hf_gradalign.demo.page import make_demo, serve
    from hf_gradalign.demo.spaces import push_space
else:
    __getattr__, __dir__ = lazy_names(__name__)

__all__ = ["make_demo", "push_space", "serve"]
