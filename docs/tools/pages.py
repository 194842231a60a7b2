"""Pages that MkDocs makes from the code at build time, so that they cannot go stale.

MkDocs calls `on_config` and `on_files` (mkdocs.yml, `hooks`). The pages: one per plugin kind, from the docstrings and
signatures of its interface and of every registered plugin; the configuration reference, from the schema; the tables of
a record; the Python API.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `mkdocs build` runs from anywhere

from framework.registry import REGISTRIES, Entry, Registry, discovery  # noqa: E402

SECTION = re.compile(r"^(Args|Raises|Returns|Yields|Attributes|Contract):$")


def on_config(config: Any) -> Any:
    """Put one page per plugin kind into the navigation."""
    discovery.discover([])
    for entry in config["nav"]:
        if "Plugins" in entry:
            entry["Plugins"] = [{title(kind): f"plugins/{kind}.md"} for kind in REGISTRIES]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the generated pages to those that lie in docs/."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def pages() -> dict[str, str]:
    """Path below docs/ -> Markdown of every generated page."""
    discovery.discover([])
    made = {f"plugins/{kind}.md": kind_page(registry) for kind, registry in REGISTRIES.items()}
    made["reference/configuration.md"] = configuration_page()
    made["reference/python.md"] = python_page()
    made["reference/tables.md"] = tables_page()
    return made


def title(kind: str) -> str:
    """`cost_model` -> `Cost model`."""
    return kind.replace("_", " ").capitalize()


def kind_page(registry: Registry) -> str:
    """The contract of one kind and every plugin of it."""
    module_name, _, class_name = registry.base.partition(":")
    module = __import__(module_name, fromlist=[class_name])
    base = getattr(module, class_name)
    parts = [f"# {title(registry.kind)}", prose(inspect.getdoc(module) or ""), "## The plugins"]
    parts += [summary_table(registry.entries())]
    for entry in registry.entries():
        parts += [f"### `{entry.name}`", prose(entry.doc), parameter_table(entry), source(entry.file)]
    parts += ["## The contract", *class_description(class_of(base), level=3)]
    others = [o for o in vars(module).values() if inspect.isclass(o) and o.__module__ == module_name and o is not base]
    if others:
        parts.append("## Types that it uses")
        parts += [text for other in others for text in class_description(class_of(other), level=3)]
    return "\n\n".join(part for part in parts if part) + "\n"


def summary_table(entries: list[Entry]) -> str:
    """Name and first sentence of each plugin."""
    rows = [f"| [`{e.name}`](#{e.name}) | {cell(first_sentence(e.doc))} |" for e in entries]
    return table("| name | what it is |", rows)


def parameter_table(entry: Entry) -> str:
    """The configuration keys of one plugin; empty when it has none."""
    if not entry.parameters:
        return ""
    meanings = field_meanings(entry.cls)
    rows = []
    for parameter in entry.parameters:
        default = (
            "required"
            if parameter.required
            else f"`{getattr(parameter.default_value, 'name', parameter.default_value)}`"
        )
        row = f"| `{entry.kind}.{parameter.name}` | `{cell(parameter.type_name)}` | {cell(default)} |"
        rows.append(f"{row} {meaning(meanings.get(parameter.name, ''))} |" if meanings else row)
    return table("| key | type | default | meaning |" if meanings else "| key | type | default |", rows)


def field_meanings(cls: type | None) -> dict[str, str]:
    """Field -> docstring, for a plugin whose parameters are the fields of a dataclass."""
    classes = [base for base in (cls.__mro__ if cls else ()) if "__dataclass_fields__" in vars(base)]
    return {name: doc for base in classes for name, _, _, doc in attributes(class_of(base))}


def source(file: str) -> str:
    """Where a plugin is written."""
    path = Path(file)
    return f"Source: `{path.relative_to(ROOT)}`" if path.is_relative_to(ROOT) else ""


def class_of(cls: type) -> ast.ClassDef:
    """The syntax tree of a class."""
    node = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(node, ast.ClassDef)
    return node


def class_description(node: ast.ClassDef, level: int) -> list[str]:
    """Docstring, fields and public methods of a class, as it is written in its file."""
    parts = [f"{'#' * level} `{node.name}`", prose(ast.get_docstring(node) or ""), field_table(node, "field")]
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            marks = {ast.unparse(decorator) for decorator in method.decorator_list}
            kinds = [name for name in ("abstractmethod", "classmethod", "property") if name in marks]
            prefix = f"*{' '.join(kinds).replace('abstractmethod', 'abstract')}.* " if kinds else ""
            parts.append(f"```python\n{signature(method)}\n```")
            parts.append(prefix + prose(ast.get_docstring(method) or ""))
    return [part for part in parts if part.strip()]


def signature(method: ast.FunctionDef) -> str:
    """`def name(arguments) -> type`, broken into lines where it is long."""
    result = f" -> {ast.unparse(method.returns)}" if method.returns else ""
    line = f"def {method.name}({ast.unparse(method.args)}){result}"
    if len(line) <= 100:
        return line
    return line.replace("(", "(\n    ", 1).replace(", *, ", ",\n    *, ")


def attributes(node: ast.ClassDef) -> Iterator[tuple[str, str, str, str]]:
    """Name, type, default and docstring of each annotated attribute of a class."""
    for here, after in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(here, ast.AnnAssign) and isinstance(here.target, ast.Name) and here.target.id[0] != "_":
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            doc = str(after.value.value) if documented else ""  # type: ignore[union-attr]
            default = ast.unparse(here.value) if here.value else ""
            yield here.target.id, ast.unparse(here.annotation), default, doc


def configuration_page() -> str:
    """Every key of the schema. Those of plugins are on the pages of their kinds."""
    from framework.config import schema
    from framework.interfaces import settings

    nodes = [node for module in (schema, settings) for node in ast.parse(inspect.getsource(module)).body]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for node in classes.values():
        inherited = [classes[base.id].body for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
        node.body = [*itertools.chain(*inherited), *node.body]
    owners = {"LocalSettings": "executor", "SimulatedSettings": "executor"}  # options of a group, not fields
    for name, kind, _, _ in attributes(classes["Config"]):
        if kind in classes:
            owners[kind] = name
    parts = [
        "# Configuration",
        "Every key can be set on the command line as `key=value`; `python run.py --cfg job` prints what was composed. "
        "A key of a plugin is `KIND.PARAMETER`, and the pages of the plugin kinds list these.",
        "## The root",
        key_table(classes["Config"], "", skip={"Any", *classes}),
    ]
    for name, owner in owners.items():
        node = classes[name]
        where = f"`{owner}.*`" + (" with `executor=simulated`" if name.startswith("Simulated") else "")
        parts += [f"## {where}", prose(ast.get_docstring(node) or ""), key_table(node, owner + ".")]
    parts += ["## Keys with a fixed set of values", choice_table(schema.CHOICES)]
    return "\n\n".join(parts) + "\n"


def key_table(node: ast.ClassDef, prefix: str, skip: Container[str] = ()) -> str:
    """Keys, types, defaults and meanings of one dataclass of the schema, without those of a type in `skip`."""
    rows = {}
    for name, kind, default, doc in attributes(node):  # one that a subclass has anew replaces the inherited one
        if kind in skip:
            continue
        if default.startswith("field(") or default == "MISSING":
            default = "" if prefix == "" else default.removeprefix("field(default_factory=").removesuffix(")")
        if default.startswith("SI("):
            default = default.removeprefix("SI(").removesuffix(")").strip("'")
        shown = f"`{default}`" if default else ""
        rows[name] = f"| `{prefix}{name}` | `{cell(kind)}` | {cell(shown)} | {meaning(doc)} |"
    return table("| key | type | default | meaning |", list(rows.values()))


def choice_table(choices: dict[str, Any]) -> str:
    """Allowed values of the keys that OmegaConf cannot type."""
    from framework.registry.parameters import type_name

    rows = [f"| `{key}` | `{cell(type_name(kind))}` |" for key, kind in choices.items()]
    return table("| key | values |", rows)


def tables_page() -> str:
    """The columns of a record's files, from the dataclasses that they are written from."""
    from framework.interfaces.records import RequestRecord, StepRecord
    from framework.records.metrics.recorder import OutputRecord

    parts = ["# Tables of a record", "All times are seconds since the start of the run."]
    for file, row in {
        "requests.parquet": RequestRecord,
        "steps.parquet": StepRecord,
        "outputs.jsonl": OutputRecord,
    }.items():
        node = class_of(row)
        parts += [f"## `{file}`", prose(ast.get_docstring(node) or ""), field_table(node, "column")]
    return "\n\n".join(parts) + "\n"


def python_page() -> str:
    """`LLM`, what it returns, and `SamplingParams`, read from their sources, since importing them would load torch."""
    parts = ["# Python API", "```python\nfrom framework import LLM, SamplingParams\n```"]
    for file in ("framework/app/llm.py", "framework/app/outputs.py", "framework/interfaces/sampling_params.py"):
        for node in ast.parse((ROOT / file).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                parts += class_description(node, level=2)
    return "\n\n".join([*parts, *familiar_names()]) + "\n"


def familiar_names() -> list[str]:
    """What vLLM's names mean, from the tables that refuse or serve them."""
    from framework.config.familiar import meanings
    from framework.interfaces.sampling_params import NOT_SERVED

    served = [f"| `{name}` | {cell(escape(text))} |" for name, text in meanings()]
    refused = [f"| `{name}` | {cell(escape(text))} |" for name, text in NOT_SERVED.items()]
    return [
        "## vLLM's names of engine arguments",
        "`LLM(...)` takes these beside its own keys. Any other value or name is refused with a remedy.",
        table("| argument | what it means here |", served),
        "## vLLM's sampling parameters that are refused",
        table("| parameter | why, and what to do |", refused),
    ]


def table(header: str, rows: list[str]) -> str:
    """A Markdown table; `header` and each row hold their cells between bars."""
    return "\n".join([header, re.sub(r"[^|]+", " --- ", header), *rows])


def field_table(node: ast.ClassDef, first: str) -> str:
    """The annotated attributes of a class; empty when there are none."""
    rows = [f"| `{name}` | `{cell(kind)}` | {meaning(doc)} |" for name, kind, _, doc in attributes(node)]
    return table(f"| {first} | type | meaning |", rows) if rows else ""


def meaning(doc: str) -> str:
    """The docstring of an attribute as one table cell."""
    return cell(escape(" ".join(doc.split())))


def prose(docstring: str) -> str:
    """A docstring as Markdown: its Args, Raises and Returns become lists."""
    lines, made, inside = inspect.cleandoc(docstring).splitlines(), [], False
    for line in lines:
        if found := SECTION.match(line):
            made += ["", f"**{found[1]}**", ""]
            inside = True
        elif inside and re.match(r"^ {4}\S", line):
            name, colon, text = line.strip().partition(": ")
            made.append(f"- `{name}`: {escape(text)}" if colon and len(name) < 60 else f"- {escape(line.strip())}")
        elif inside and line.startswith("     "):
            made.append(f"  {escape(line.strip())}")
        else:
            inside = inside and not line
            made.append(line if line.startswith("    ") else escape(line))
    return "\n".join(made).strip()


def escape(text: str) -> str:
    """Characters that Markdown would take for markup, outside backticks."""
    marks = {ord("<"): "&lt;", ord("*"): "\\*", ord("["): "\\["}
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else piece.translate(marks) for piece in pieces)


def cell(text: str) -> str:
    """Text inside a table row."""
    return text.replace("|", "\\|").replace("\n", " ")


def first_sentence(doc: str) -> str:
    """The first sentence of a docstring, however it is wrapped."""
    paragraph = " ".join(doc.partition("\n\n")[0].split())
    return escape(re.split(r"(?<=\.)\s", paragraph, maxsplit=1)[0])
