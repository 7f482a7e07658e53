"""The scorer beside the usual tools: peers, how much arithmetic a pair takes, the machine's peak.

May import `mkdm.pages` and what is below it. `jobs` runs setup, sides and gemm_peak as processes of their own.
"""

from typing import TYPE_CHECKING

from mkdm.doors import door

if TYPE_CHECKING:
    from mkdm.benchmark.peers import transformers
    from mkdm.benchmark.sides import SideConfig, latency
else:
    __all__, __getattr__, __dir__ = door(__name__)
