"""The parser of the command line: argparse, with messages about the subcommand that was used."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose subcommands find unknown arguments themselves, and then show their usage."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """Parse; an argument that is left over is wrong usage."""
        arguments = sys.argv[1:] if args is None else list(args)
        self._check_flags(arguments)
        parsed, rest = super().parse_known_args(arguments, namespace)
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        if not hasattr(parsed, "parser"):
            parsed.parser = self
        return parsed, rest

    def error(self, message: str) -> NoReturn:
        """Show this parser's usage and end, with what came from outside made visible."""
        from csm_ggml.cli.common import printable

        super().error(printable(message))

    def _check_flags(self, arguments: Sequence[str]) -> None:
        """Refuse what begins like a flag and is none: argparse would take `-hello` as `-h`."""
        for argument in arguments:
            if argument == "--":
                return
            if not self.takes_subcommands() and _is_flags(argument):
                self._check_letters(argument)

    def _check_letters(self, argument: str) -> None:
        for letter in argument[1:]:
            action = self._option_string_actions.get(f"-{letter}")
            if action is None:
                self.error(
                    f"unrecognized argument {argument[:60]!r}; a text that begins with - goes "
                    "after --"
                )
            if action.nargs != 0:
                return

    def takes_subcommands(self) -> bool:
        """Whether the arguments are for another parser."""
        return self._subparsers is not None


def _is_flags(argument: str) -> bool:
    """Whether an argument looks like several flags in one, or a flag with its value."""
    return len(argument) > 2 and argument[0] == "-" and argument[1].isalpha()


def checked(check: Callable[[str], Any]) -> Callable[[str], Any]:
    """The type of an argument that a function checks, whose message is shown as it is."""

    def parse(text: str) -> Any:
        try:
            return check(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def option(name: str) -> Callable[[str], Any]:
    """The type of an argument that is an option of `GenerateOptions`, within its limits."""

    def parse(text: str) -> Any:
        from csm_ggml.limits import parse_option

        return parse_option(name, text)

    return checked(parse)
