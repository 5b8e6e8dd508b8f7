"""Where the calculators of a shared root look for weights, and where they write; no network meanwhile.

Libraries are told by environment variables. The root's own cache holds the weights and may be read-only for those who
use it, so whatever is written while a calculator works goes into a cache of the user's own.
"""

from __future__ import annotations

import os
from pathlib import Path

#: What keeps libraries from the network; weights are fetched ahead (`mlipcluster.calculators.fetch`).
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
#: Within the root's cache. HOME is for those that write ``~/.cache`` out.
CACHES = {
    "HOME": "home",
    "XDG_CACHE_HOME": "",
    "HF_HOME": "huggingface",
    "HF_HUB_CACHE": "huggingface/hub",
    "TORCH_HOME": "torch",
}
#: Within the user's own cache.
WRITTEN = {
    "XDG_CONFIG_HOME": "config",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TORCH_EXTENSIONS_DIR": "torch_extensions",
    "CUDA_CACHE_PATH": "cuda",
    "WARP_CACHE_PATH": "warp",
    "CACHED_PATH_CACHE_ROOT": "cached_path",
}
#: Variables that only say where files lie: what is in the files decides the answers, and is hashed when it is read.
PLACES = frozenset({*CACHES, *WRITTEN})


def variables(cache: Path) -> tuple[tuple[str, str], ...]:
    """Environment variables of a calculator whose weights are in *cache*.

    Variables of this process that already say where something is to be written are kept.
    """
    own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "mlipcluster"
    written = {name: str(own / folder) for name, folder in WRITTEN.items()}
    written.update((name, os.environ[name]) for name in WRITTEN if os.environ.get(name) and name != "XDG_CONFIG_HOME")
    caches = {name: str(cache / folder) for name, folder in CACHES.items()}
    return tuple({**OFFLINE, **caches, **written, "PYTHONDONTWRITEBYTECODE": "1"}.items())
