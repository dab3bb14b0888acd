"""The certificate of a rig as a file, and what a run demands of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from neds_core.errors import ConfigError
from neds_core.files import sha256, whole
from runtime.certificate.chain import Chain, changed

SCHEMA = 1
KIND = "certificate"
REPLAY, LIVE = "replay", "live"
MOST = 5  # changes that a sentence names


class Line(Struct, frozen=True):
    """One piece of evidence. INFO: told, not judged. remedy: of a FAIL."""

    name: str
    verdict: Literal["PASS", "FAIL", "INFO"]
    said: str
    remedy: str = ""


class Certificate(Struct, frozen=True, kw_only=True):
    """What a rig was measured to do. source: live | replay. created: UTC. measured: the numbers behind the evidence.
    misses: share of the deadlines that at most was missed, at 95 % confidence; 1 = not said."""

    schema: int = SCHEMA
    kind: str = KIND
    created: str
    rig: str
    source: str
    seconds: float
    misses: float = 1.0
    chain: Chain
    evidence: tuple[Line, ...]
    measured: dict[str, Any] = {}

    @property
    def failed(self) -> list[str]:
        """Names of the evidence that speaks against it."""
        return [line.name for line in self.evidence if line.verdict == "FAIL"]

    @property
    def verdict(self) -> str:
        """PASS, or FAIL; from the evidence alone."""
        return "FAIL" if self.failed or not any(line.verdict == "PASS" for line in self.evidence) else "PASS"


class Held(Struct, frozen=True):
    """What a run keeps of the certificate that it demanded; all is empty where it demanded none.

    told: what its log says of it. scheduling: what the loop has to be granted, as certified. checkpoint: its SHA-256.
    """

    told: dict[str, str] = {}
    scheduling: str = ""
    checkpoint: str = ""

    def refuse_other(self, loaded: str) -> None:
        """Raise `ConfigError` where a checkpoint of this SHA-256 was loaded and another is certified."""
        if self.checkpoint not in ("", loaded):
            raise ConfigError(
                f"checkpoint: {loaded[:12]} was loaded, {self.checkpoint[:12]} is certified: its file changed while "
                "the run started; start it again"
            )


def beside(rig: Path) -> Path:
    """Where the certificate of a rig's file lies unless another place is named."""
    return rig.with_name(f"{rig.stem}.certificate.json")


def save(certificate: Certificate, path: Path) -> None:
    """Write it whole, with its verdict. Raises `ConfigError` where it cannot be written."""
    tree = {"verdict": certificate.verdict} | msgspec.to_builtins(certificate)
    with whole(path) as partial:
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(tree), indent=1) + b"\n")


def load(path: Path) -> Certificate:
    """Read what `save` wrote. Raises `ConfigError` where it is none."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Certificate)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no certificate; make one with neds-rt certify RIG.toml") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is no certificate ({error}); make one with neds-rt certify RIG.toml") from None
    if (found.kind, found.schema) != (KIND, SCHEMA):
        raise ConfigError(
            f"{path} is a {found.kind!r} of schema {found.schema}, not a certificate of schema {SCHEMA}; make one with "
            "neds-rt certify RIG.toml"
        )
    return found


def require(path: Path, now: Chain, *, live: bool) -> Held:
    """Refuse to start without a certificate that still holds. live: a certificate of a replay does not do.

    Raises `ConfigError`, which names what has changed.
    """
    found = load(path)
    again = "certify the rig again with neds-rt certify RIG.toml"
    if found.verdict != "PASS":
        raise ConfigError(f"{path} is a FAIL ({', '.join(found.failed) or 'no evidence'}); mend that, then {again}")
    if live and found.source != LIVE:
        raise ConfigError(
            f"{path} is of a {found.source}: it certifies software and machine, not this rig; certify it on its live "
            "streams, or give --allow-replay for streams of neds-rt play"
        )
    if differs := changed(found.chain, now):
        more = f", and {len(differs) - MOST} more" if len(differs) > MOST else ""
        raise ConfigError(f"{path} no longer holds: {'; '.join(differs[:MOST])}{more}; {again}")
    told = {
        "sha256": sha256(path), "created": found.created, "source": found.source, "seconds": f"{found.seconds:g}",
        "misses": f"{found.misses:g}",
    }  # fmt: skip
    return Held(told, found.chain.environment.get("scheduling", ""), found.chain.checkpoint)
