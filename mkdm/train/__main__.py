"""`python -m mkdm.train`."""

from mkdm.config import run_command
from mkdm.train.loop import main

run_command(main)
