"""`foreword base`: the frozen models this machine knows by name."""

from __future__ import annotations

from typing import Annotated

import typer

from foreword.cli.output import errors, out, print_json

app = typer.Typer(help="Base models: fetch the demo, name your own.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def demo() -> None:
    """Fetch the demo model (SmolLM2-135M-Instruct) once and print its directory."""
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.bases import demo_base, is_here

    if not is_here():
        quiet_libraries()
    directory = demo_base(lambda line: errors.print(line))
    out.print(str(directory), soft_wrap=True)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Short name for --base.")],
    source: Annotated[str, typer.Argument(help="Directory, GGUF file or Hugging Face id.")],
) -> None:
    """Give a model a short name on this machine."""
    from foreword.prefix.bases import add_base

    base = add_base(name, source)
    out.print(f"{base.name} is {base.directory}", soft_wrap=True)


@app.command("list")
def list_(json: Json = False) -> None:
    """List the demo model, if it is here, and the added names."""
    from foreword.prefix.bases import list_bases

    bases = list_bases()
    if json:
        print_json([{"name": b.name, "directory": str(b.directory)} for b in bases])
    elif not bases:
        out.print("no bases yet; `foreword base demo` fetches one")
    for base in [] if json else bases:
        out.print(f"{base.name}\t{base.directory}", soft_wrap=True)


@app.command()
def fingerprint(
    base: Annotated[str, typer.Argument(help="Name, directory, GGUF file or Hugging Face id.")],
    json: Json = False,
) -> None:
    """Print what a base is known by: a digest of its weights, configuration and tokenizer."""
    from foreword.cli.output import quiet_libraries
    from foreword.prefix.files import identify

    quiet_libraries()
    ref = identify(base)
    if json:
        print_json({"id": ref.id, "fingerprint": str(ref.fingerprint),
                    "tokenizer": str(ref.tokenizer) if ref.tokenizer else None})  # fmt: skip
    else:
        out.print(str(ref.fingerprint))
