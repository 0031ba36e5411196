"""The command ``edgekit``: a group whose commands are imported only when they are called."""

from __future__ import annotations

import importlib
import os
import sys
import traceback

import click

from edgekit import __version__
from edgekit.errors import EdgeKitError, did_you_mean

# Command → where it is and its line of help; written out so that `edgekit --help` imports none of them.
COMMANDS = {
    "doctor": ("edgekit.cli.doctor:doctor", "Say what is installed, and what each target lacks here."),
    "init": ("edgekit.cli.init:init", "Write a commented edgekit.toml to start from."),
    "deploy": ("edgekit.cli.deploying:deploy", "Run a recipe from the teacher to a proven bundle."),
    "distill": ("edgekit.cli.deploying:distill", "Train the teacher and distil the student of a recipe."),
    "prune": ("edgekit.cli.pruning:prune", "Prune the student of a recipe to a latency budget."),
    "export": ("edgekit.cli.deploying:export", "Make a bundle from one model, without a recipe."),
    "quantize": ("edgekit.cli.quantizing:quantize", "Put one model in the precision that pays on a target."),
    "report": ("edgekit.cli.reporting:report", "Show finished runs again: text, HTML, Markdown, JUnit."),
    "profile": ("edgekit.cli.bundles:profile", "Measure a bundle here and judge it."),
    "compare": ("edgekit.cli.comparing:compare", "Say which of several is faster, and by how much."),
    "verify": ("edgekit.cli.bundles:verify", "Recheck a bundle's files and golden samples."),
    "run": ("edgekit.cli.bundles:run", "Run a bundle on samples from a file."),
    "inspect": ("edgekit.cli.bundles:inspect", "Say what a bundle or an ONNX file is made of."),
    "watch": ("edgekit.cli.watching:watch", "Show how a bundle does where it runs, and judge its limits."),
    "targets": ("edgekit.cli.catalogue:targets", "List the targets, or show one."),
    "profiles": ("edgekit.cli.catalogue:profiles", "List the profiles, or show one."),
}

INTERRUPTED = 130
BROKEN_PIPE = 141  # 128 + SIGPIPE, as a shell would say


class LazyGroup(click.Group):
    """Imports a command when it is called; a command returns its exit code (None is 0)."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attr = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attr)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command; a wrong name is a usage error with the nearest one."""
        if args[0] not in COMMANDS:
            near = did_you_mean(args[0], COMMANDS) or f"the commands are: {', '.join(COMMANDS)}"
            raise click.UsageError(f"no such command {args[0]!r}; {near}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> None:
        """Runs the command and exits with its code; an error of ours is told, not thrown."""
        ctx.exit(self._exit_code(ctx))

    def _exit_code(self, ctx: click.Context) -> int:
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            # Whoever read our output is gone; what is still buffered must not raise again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except EdgeKitError as exc:
            return _tell(str(exc), exc.exit_code, ctx)
        except OSError as exc:  # a full disk, a folder that may not be written
            place = f"{exc.filename}: " if exc.filename else ""
            return _tell(f"{place}{exc.strerror or exc}", EdgeKitError.exit_code, ctx)
        return code if isinstance(code, int) else 0


def _tell(message: str, code: int, ctx: click.Context) -> int:
    if ctx.params["debug"]:
        traceback.print_exc()
    from edgekit.cli._output import print_error

    print_error(message)
    return code


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(__version__, prog_name="edgekit")
def cli(debug: bool) -> None:
    """Take a trained PyTorch model to an edge device, and prove that it meets a latency budget there.

    Exit codes: 0 met, 1 error, 2 usage, 3 a limit not met, 4 inconclusive or not measured.
    """


def main() -> None:
    """Runs the command line and exits."""
    cli(prog_name="edgekit")
