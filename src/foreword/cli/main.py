"""`foreword`: the application, its verbs, and how errors leave it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from foreword import __version__
from foreword.cli import (
    base,
    doctor,
    generate,
    inspect,
    keys,
    load,
    peft,
    replicas,
    serve,
    sign,
    top,
    train,
    verify,
)
from foreword.cli.access import app as access
from foreword.cli.chat import app as chat
from foreword.cli.evaluation import drift, evaluate, gate, golden
from foreword.cli.output import errors, visible
from foreword.cli.registry import app as registry
from foreword.errors import ForewordError, StorageError, UsageError

INTERRUPTED = 130

app = typer.Typer(
    name="foreword",
    help="Train prefixes for a frozen language model, look at them, and use them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("train")(train.train)
app.command("generate")(generate.generate)
app.command("serve")(serve.serve)
app.command("chat")(chat.chat)
app.command("top")(top.top)
app.command("load")(load.load)
app.command("replicas")(replicas.replicas)
app.command("evaluate")(evaluate.evaluate)
app.command("compare")(evaluate.compare)
app.command("gate")(gate.gate)
app.command("inspect")(inspect.inspect)
app.command("sign")(sign.sign)
app.command("verify")(verify.verify)
app.command("import-peft")(peft.import_peft)
app.command("export-peft")(peft.export_peft)
app.command("doctor")(doctor.doctor)
app.add_typer(base.app, name="base")
app.add_typer(keys.app, name="keys")
app.add_typer(golden.app, name="golden")
app.add_typer(drift.app, name="drift")
app.add_typer(registry.app, name="registry")
app.add_typer(access.app, name="access")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"foreword {__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the trace of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the verb."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors become one line on stderr and an exit code (docs/cli.md)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    # Accepted anywhere on the line: who needs the trace has the failing command in front of them.
    debug = "--debug" in given
    given = [word for word in given if word != "--debug"]
    try:
        code = app(given, standalone_mode=False)
    except typer.TyperException as e:
        # Typer has its own copy of click; without a message it has already printed the help.
        if message := e.format_message():
            _say("usage", message)
        sys.exit(UsageError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except ForewordError as e:
        _report(debug)
        _say(e.code, str(e))
        sys.exit(e.exit_code)
    except OSError as e:
        _report(debug)
        _say("storage", f"the system refused: {e}; nothing was half written")
        sys.exit(StorageError.exit_code)
    except ModuleNotFoundError as e:
        _report(debug)
        _say(
            "usage.extra", f"this command needs {e.name}, which is not installed; {_extra(e.name)}"
        )
        sys.exit(UsageError.exit_code)
    except Exception as e:
        _report(debug)
        hint = "" if debug else " (run with --debug for the trace, and please report it)"
        _say("bug", f"{type(e).__name__}: {e}{hint}")
        sys.exit(1)
    if code == INTERRUPTED:  # Typer turns Ctrl-C inside a command into this exit code
        errors.print("stopped; what is unfinished goes on when the same command is run again")
    sys.exit(code if isinstance(code, int) else 0)


def _extra(module: str | None) -> str:
    """How to install what an optional part of Foreword needs."""
    extras = {"datasets": "data", "psycopg": "postgres", "mlflow": "mlflow", "model_signing": "oms",
              "fastapi": "serve", "starlette": "serve", "uvicorn": "serve", "httpx2": "serve",
              "prometheus_client": "serve", "h11": "serve", "joserfc": "oidc"}  # fmt: skip
    return f"pip install 'foreword[{extras.get(str(module).split('.')[0], 'train')}]'"


def _say(code: str, message: str) -> None:
    """One line, whatever a library put into the message."""
    errors.print(
        f"error[{code}]: {visible(' '.join(message.split()))}", markup=False, soft_wrap=True
    )


def _report(debug: bool) -> None:
    if debug:
        traceback.print_exc()
