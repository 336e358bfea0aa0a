"""Constructs that the code must not contain, checked on the syntax trees of the whole package."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import perdure

SOURCE = Path(perdure.__file__).parent
# Each of these turns data into code, or passes data to code that does.
MODULES = frozenset(
    {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "jsonpickle", "yaml", "joblib", "code"}
)
CALLS = frozenset({"eval", "exec", "__import__"})
SHELLS = frozenset({"system", "popen"})


def trees() -> Iterator[tuple[str, ast.AST]]:
    for file in sorted(SOURCE.rglob("*.py")):
        yield str(file.relative_to(SOURCE)), ast.parse(file.read_text())


def found(wanted: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, wanted):
                yield name, node


def test_nothing_is_unpickled_or_evaluated() -> None:
    imported = {
        (name, module.partition(".")[0])
        for kind in (ast.Import, ast.ImportFrom)
        for name, node in found(kind)
        for module in ([a.name for a in node.names] if isinstance(node, ast.Import) else [str(node.module)])  # type: ignore[attr-defined]
    }
    called = {
        (name, node.func.id)  # type: ignore[attr-defined]
        for name, node in found(ast.Call)
        if isinstance(node.func, ast.Name)  # type: ignore[attr-defined]
    }

    assert not [(name, module) for name, module in imported if module in MODULES]
    assert not [(name, function) for name, function in called if function in CALLS]


def test_nothing_goes_through_a_shell_and_no_certificate_is_passed_over() -> None:
    for name, node in found(ast.Call):
        assert isinstance(node, ast.Call)
        attribute = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        assert attribute not in SHELLS, name
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            assert (keyword.arg, value) not in {("shell", True), ("verify", False), ("autoescape", False)}, (
                name
            )


def test_no_template_passes_text_as_markup() -> None:
    for file in (SOURCE / "http").rglob("*.html"):
        text = file.read_text()
        assert "|safe" not in text.replace(" ", "") and "autoescape" not in text, file
        assert "<script>" not in text and " style=" not in text and " onclick" not in text, file
    # The pages of errors come with the package: nothing a stranger wrote is in them. A panel
    # is what a template of the application has escaped.
    marked = {name for name, node in found(ast.Name) if getattr(node, "id", "") == "Markup"}
    assert marked == {"http/pages/error_pages.py", "http/pages/panels.py"}


@pytest.mark.parametrize("name", ["random", "uuid1", "md5", "sha1"])
def test_chance_and_digests_of_the_access_layer_are_strong(name: str) -> None:
    for file in (SOURCE / "http" / "access").rglob("*.py"):
        used = {
            getattr(node, "attr", "") or getattr(node, "id", "") or getattr(node, "name", "")
            for node in ast.walk(ast.parse(file.read_text()))
        }
        assert name not in used, file


def test_no_statement_is_put_together_with_values() -> None:
    """SQL stands in files; what is formatted into it are names of columns and lists of question marks."""
    for name, node in found(ast.JoinedStr):
        assert isinstance(node, ast.JoinedStr)
        text = "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)).upper()
        if any(text.lstrip().startswith(verb) for verb in ("SELECT ", "INSERT ", "UPDATE ", "DELETE ")):
            assert name.startswith("store/"), (name, text)
