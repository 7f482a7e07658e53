"""From a command line to frozen dataclasses: flags over a YAML file over defaults, attribute docstrings as help."""

import argparse
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings

from mkdm.credentials import hide_credentials  # jobs take it from here
from mkdm.errors import ConfigError, MkdmError, refuse_credentials

set_parsing_settings(docstring_parse_attribute_docstrings=True)


def parse_config(prog: str, argv: Sequence[str] | None, *classes: type) -> list[Any]:
    """Fill config dataclasses from `argv`.

    Every field becomes a flag with hyphens; `--config FILE.yaml` sets fields by their names; `--print-config` prints
    them all. `--help` prints the attribute docstrings and exits.

    Args:
        prog: the command's name in the help.
        argv: the arguments, by default those of the process.
        classes: dataclasses without a field in common; the first one's docstring introduces the help.

    Returns:
        One instance of each class.

    Raises:
        ConfigError: an unknown flag, a missing one, a value of the wrong type, or a URI with credentials in it.
    """
    parser = ArgumentParser(prog=prog, description=(classes[0].__doc__ or "").partition("\n")[0], exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win.")
    for cls in classes:
        parser.add_class_arguments(cls)
    for action in parser._actions:  # jsonargparse knows no other way to spell flags with hyphens
        hyphens = [option.replace("_", "-") for option in action.option_strings]
        parser._option_string_actions.update(dict.fromkeys(hyphens, action))
        action.option_strings = hyphens
    try:
        values = parser.parse_args(argv)
    except argparse.ArgumentError as error:
        raise ConfigError(" ".join(str(error).split()) + f" (see {prog} --help)") from error
    for name in (field.name for cls in classes for field in fields(cls)):
        for value in values[name] if isinstance(values[name], list) else [values[name]]:
            if isinstance(value, str):
                refuse_credentials(value, f"--{name.replace('_', '-')}")
    return [cls(**{field.name: values[field.name] for field in fields(cls)}) for cls in classes]


def require_at_least(config: object, least: float, *names: str) -> None:
    """Check fields of a config; None, and a word such as auto, pass.

    Raises:
        ConfigError: a number is below the least; the text names its flag.
    """
    for name in names:
        value = getattr(config, name)
        if isinstance(value, (int, float)) and value < least:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must be at least {least}")


def require_shares(config: object, *names: str) -> None:
    """Check fields of a config that are shares; None passes.

    Raises:
        ConfigError: one does not lie in [0, 1]; the text names its flag.
    """
    for name in names:
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {value}; it must lie in [0, 1]")


def run_command(
    main: Callable[[Sequence[str] | None], None],
    argv: Sequence[str] | None = None,
    also: tuple[type[Exception], ...] = (),
) -> None:
    """Run a command: an error that the user can mend becomes one line on stderr and exit code 2.

    Args:
        also: errors of other folders that are such, besides `MkdmError`. Any other fault keeps its traceback, without
            the credentials that may be in it, and exits 1.
    """
    try:
        main(argv)
    except Exception as error:
        if not isinstance(error, (MkdmError, *also)):
            print(hide_credentials(traceback.format_exc()), file=sys.stderr, end="")
            raise SystemExit(1) from None
        print(f"error: {hide_credentials(' '.join(str(error).split()))}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
