"""Files of tensors (safetensors): written whole, with a hash of their content, and never over what is not ours."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as from_bytes, save as to_bytes
from torch import Tensor

from neds_core.errors import ConfigError
from neds_core.files import whole

CONTENT = "content_sha256"  # key of the metadata


def content_sha(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of all that a file holds: its metadata (but this), and each tensor's name, type, shape and bytes."""
    found = hashlib.sha256(msgspec.json.encode(sorted((k, v) for k, v in metadata.items() if k != CONTENT)))
    for name in sorted(tensors):
        value = tensors[name].detach().cpu()
        found.update(f"{name}\n{value.dtype} {tuple(value.shape)}\n".encode())
        # not copied: of a bool, a copy is 0 or 1 whatever the byte was
        found.update(value.contiguous().as_strided((value.numel(),), (1,)).view(torch.uint8).numpy().data)
    return found.hexdigest()


def check_content(tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Raise `ValueError` where a file is not what was written; one of before this hash was kept has none."""
    if metadata.get(CONTENT, "") not in ("", content_sha(tensors, metadata)):
        raise ValueError("its content does not match its own SHA-256")


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], check: Callable[[Path], object]
) -> None:
    """Write a safetensors file with the hash of its content; `check` reads it before it takes its place."""
    metadata = metadata | {CONTENT: content_sha(tensors, metadata)}
    with whole(path) as partial:
        partial.write_bytes(_ordered(to_bytes(tensors, metadata=metadata)))  # save_file would make it mode 0600
        check(partial)


def _ordered(data: bytes) -> bytes:
    """The same file with sorted metadata: safetensors writes them in an order of chance."""
    size = int.from_bytes(data[:8], "little")
    header = msgspec.json.decode(data[8 : 8 + size])
    text = msgspec.json.encode(header | {"__metadata__": dict(sorted(header["__metadata__"].items()))})
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def refuse_foreign(path: Path) -> None:
    """Raise `ConfigError` where `--out` cannot be written, or would overwrite what is no checkpoint of neds-rt."""
    if not path.parent.is_dir():
        raise ConfigError(f"--out {path}: its folder does not exist; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"--out {path}: its folder cannot be written; give another")
    if path.exists() and not is_ours(path):
        raise ConfigError(f"--out {path} exists and is no checkpoint of neds-rt; give another name or move that file")


def is_ours(path: Path) -> bool:
    """Whether a file says that neds-rt wrote it; False for one that is not there or cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return any(key.startswith("neds_rt") for key in file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file. Raises `SafetensorError`, `OSError` or `ValueError` for another."""
    return parse_tensors(path.read_bytes())


def parse_tensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of the bytes of a safetensors file. Raises `SafetensorError` or `ValueError` for others."""
    try:
        tensors = from_bytes(data)
    except (KeyError, AssertionError, RuntimeError) as error:  # a type that torch does not have
        raise ValueError(str(error)) from None
    header = msgspec.json.decode(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return tensors, header.get("__metadata__", {})
