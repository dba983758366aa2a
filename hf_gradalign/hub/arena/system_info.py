"""Describes a system for the Arena, from the model's folder."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_local_safetensors_metadata
from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

from hf_gradalign.hub.arena import ArenaError
from hf_gradalign.models import SincConfig, SpoofDetectorConfig
from hf_gradalign.utils.file_faults import json_fault

_SLUG = re.compile(r"[a-z0-9][a-z0-9-]*")
_BIBTEX = re.compile(r"```bibtex\n(.*?)\n```", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class ArenaPaper:
    """A system's paper. The Arena lists systems without one, but does not rank them.

    Attributes:
        arxiv_id: The arXiv number, such as "2509.20682".
        bibtex: The BibTeX entry, which submissions need.
    """

    arxiv_id: str
    bibtex: str | None = None

    @property
    def url(self) -> str:
        """The paper's URL."""
        return f"https://arxiv.org/abs/{self.arxiv_id}"


@dataclass(frozen=True, kw_only=True)
class ArenaSystem:
    """A system in the Arena.

    Attributes:
        name: A readable name.
        slug: Its id in the Arena: lower-case letters, digits and hyphens.
        description: A sentence.
        code: URL of its code.
        checkpoint: URL of its weights.
        paper: Its paper, if there is one.
        params_millions: Its size in millions of parameters.

    Raises:
        ArenaError: If the slug is not valid.
    """

    name: str
    slug: str
    description: str = ""
    code: str | None = None
    checkpoint: str | None = None
    paper: ArenaPaper | None = None
    params_millions: float | None = None

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.slug):
            raise ArenaError(
                f"'{self.slug}' is not a slug: use lower-case letters, digits and hyphens, and no hyphen at the start"
            )


def describe_system(
    model_dir: str | Path,
    *,
    repo_id: str | None = None,
    name: str | None = None,
    slug: str | None = None,
    description: str | None = None,
    code: str | None = None,
    checkpoint: str | None = None,
    paper_arxiv: str | None = None,
    paper_bibtex: str | None = None,
) -> ArenaSystem:
    """Describe a model for the Arena. Arguments that are None are read from its folder.

    Args:
        model_dir: The model's folder.
        repo_id: `namespace/name` of its current or future repository on the Hub.
        name: Defaults to the repository's name, or the folder's without one.
        slug: Defaults to the name in lower case with hyphens.
        description: Defaults to the encoder, head and size.
        code: Defaults to the model's page, whose card has the commands.
        checkpoint: Defaults to the model's page.
        paper_arxiv: The paper's arXiv number.
        paper_bibtex: Its BibTeX entry. Defaults to the one in the model card with this `eprint`.

    Raises:
        ArenaError: If the folder contains no model, or a name or number is not valid.
    """
    folder = Path(model_dir)
    config = folder / constants.CONFIG_NAME
    if not config.is_file():
        raise ArenaError(f"{folder} is not a model's folder: it has no {constants.CONFIG_NAME}")
    if fault := json_fault(config):
        raise ArenaError(f"{config} {fault}")
    name = name or (repo_id or folder.resolve().name).split("/")[-1]
    page = f"https://huggingface.co/{repo_id}" if repo_id else None
    size = count_millions(folder)
    return ArenaSystem(
        name=name,
        slug=slug or re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"),
        description=description or _description(json.loads(config.read_text(encoding="utf-8")), size),
        code=code or page,
        checkpoint=checkpoint or page,
        paper=_paper(folder, paper_arxiv, paper_bibtex),
        params_millions=size,
    )


def count_millions(folder: Path) -> float | None:
    """Count the parameters in a model's safetensors files, in millions, from their headers. None without such files."""
    try:
        counts = get_local_safetensors_metadata(folder).parameter_count
    except (NotASafetensorsRepoError, FileNotFoundError):
        return None
    except (SafetensorsParsingError, ValueError, RecursionError) as error:
        raise ArenaError(f"the weights in {folder} cannot be read: {error}") from error
    return round(sum(counts.values()) / 1e6, 4)


def _description(config: dict[str, Any], size: float | None) -> str:
    if config.get("model_type") == SpoofDetectorConfig.model_type:
        backbone = config.get("backbone_config")
        encoder = backbone.get("model_type", "speech") if isinstance(backbone, dict) else "speech"
        front_end = "sinc filters" if encoder == SincConfig.model_type else f"{encoder} encoder"
        what = f"{front_end}, {config.get('head', 'unknown')} head"
    else:
        names = config.get("architectures") or [config.get("model_type", "audio classifier")]
        what = ", ".join(map(str, names if isinstance(names, list) else [names]))
    return f"{what}, {size:.2f} million parameters; hf_gradalign" if size else f"{what}; hf_gradalign"


def _paper(folder: Path, arxiv_id: str | None, bibtex: str | None) -> ArenaPaper | None:
    if arxiv_id is None:
        if bibtex is not None:
            raise ArenaError("a BibTeX entry also needs the paper's arXiv number (--paper_arxiv)")
        return None
    if not re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?/\d{7}(v\d+)?", arxiv_id):
        raise ArenaError(f"'{arxiv_id}' is not an arXiv number, such as 2509.20682")
    card = folder / constants.REPOCARD_NAME
    if bibtex is None and card.is_file():
        entries = _BIBTEX.findall(card.read_text(encoding="utf-8"))
        bibtex = next((entry for entry in entries if arxiv_id in entry), None)
    return ArenaPaper(arxiv_id=arxiv_id, bibtex=bibtex)
