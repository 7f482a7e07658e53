"""`python -m mkdm.experiments`."""

from mkdm.config import run_command
from mkdm.experiments.loop import main

run_command(main)
