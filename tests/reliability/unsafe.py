"""Finding code that turns data into running code, in source that is parsed and never run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

MODULES = frozenset({"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle",
                     "marshal", "shelve", "code", "codeop", "runpy", "imp"})  # fmt: skip
NAMES = frozenset({
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "torch.load", "torch.jit.load", "torch.hub.load",
    "torch.export.load", "torch.package.PackageImporter", "numpy.load", "numpy.lib.npyio.load",
    "numpy.lib.format.read_array", "pandas.read_pickle", "yaml.load", "yaml.load_all",
    "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.Loader",
    "yaml.FullLoader", "yaml.UnsafeLoader", "yaml.CLoader", "yaml.CFullLoader", "yaml.CUnsafeLoader",
})  # fmt: skip
KEYWORDS = {"shell": True, "allow_pickle": True, "trust_remote_code": True, "weights_only": False,
            "use_safetensors": False, "chat_template": None}  # fmt: skip
"""Arguments and the value that makes them dangerous; None stands for any value. A chat template is a
program, and an artifact keeps one for the record."""
TEMPLATES = frozenset({"jinja2"})
"""A template is code: only our own may be rendered."""


def findings(source: str, *, own_templates: bool = False) -> list[str]:
    """What is dangerous in a module, as `line: what`. An `assert` is no check: -O removes it."""
    root = ast.parse(source)
    banned = MODULES if own_templates else MODULES | TEMPLATES
    aliases = dict(_imports(root))
    found = [
        (line, origin)
        for line, origin in aliases.values()
        if _top(origin) in banned or origin in NAMES
    ]
    for node in ast.walk(root):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [(node.lineno, name) for name in _modules(node) if _top(name) in banned]
        elif isinstance(node, ast.Attribute | ast.Name):
            if (name := _dotted(node, aliases)) in NAMES:
                found.append((node.lineno, name))
        elif isinstance(node, ast.Call):
            found += [(node.lineno, what) for what in _call(node, aliases, banned)]
        elif isinstance(node, ast.Assert):
            found.append((node.lineno, "assert"))
    return [f"{line}: {what}" for line, what in sorted(set(found))]


def _imports(root: ast.Module) -> Iterator[tuple[str, tuple[int, str]]]:
    """Each name an import binds, with its line and what it stands for."""
    for node in ast.walk(root):
        if isinstance(node, ast.Import):
            for alias in node.names:
                bound = alias.asname or _top(alias.name)
                yield bound, (node.lineno, alias.name if alias.asname else bound)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, (node.lineno, f"{node.module}.{alias.name}")


def _modules(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names]


def _call(
    node: ast.Call, aliases: dict[str, tuple[int, str]], banned: frozenset[str]
) -> Iterator[str]:
    for keyword in node.keywords:
        if keyword.arg not in KEYWORDS:
            continue
        danger = KEYWORDS[keyword.arg]
        harmless = isinstance(keyword.value, ast.Constant) and keyword.value.value is not danger
        if danger is None or not harmless:
            yield f"{keyword.arg}="
    if _dotted(node.func, aliases) == "importlib.import_module" and node.args:
        wanted = node.args[0]
        if isinstance(wanted, ast.Constant) and _top(str(wanted.value)) in banned:
            yield str(wanted.value)


def _dotted(node: ast.expr, aliases: dict[str, tuple[int, str]]) -> str:
    """`t.load` after `import torch as t` is `torch.load`; "" for what is no plain name."""
    if isinstance(node, ast.Name):
        return aliases[node.id][1] if node.id in aliases else node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value, aliases)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _top(name: str) -> str:
    return name.partition(".")[0]
