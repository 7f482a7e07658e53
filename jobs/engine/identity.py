"""What makes two runs the same: job, settings, versions of the inputs and model, and the fingerprint of these."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

ORIGIN = "registered_"
"""How the names of an origin start, among the settings of a run in `runs`."""


@dataclass(frozen=True)
class Identity:
    """All that decides the output of a run.

    Attributes:
        origin: where a registry or the hub keeps its models, which decides nothing: `runs` has it among the settings.
    """

    job: str
    settings: dict[str, str]
    input_versions: dict[str, str]
    model_version: str
    origin: dict[str, str] = field(default_factory=dict, compare=False)

    @property
    def fingerprint(self) -> str:
        """32 hex digits that two runs share exactly when all of this is equal."""
        decides = {name: value for name, value in asdict(self).items() if name != "origin"}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]

    def differences(self, other: "Identity") -> str:
        """What differs, as `name: there → here`."""
        there, here = _flat(other), _flat(self)
        names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
        return ", ".join(f"{name}: {there.get(name, 'none')} → {here.get(name, 'none')}" for name in names)


def _flat(identity: Identity) -> dict[str, str]:
    return {
        "job": identity.job,
        "model_version": identity.model_version,
        **identity.settings,
        **{f"version of {name}": version for name, version in identity.input_versions.items()},
    }


def settings_of(config: Any, names: tuple[str, ...]) -> dict[str, str]:
    """The chosen settings as the ledger keeps them."""
    return {name: str(getattr(config, name)) for name in names}
