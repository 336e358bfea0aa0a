"""The runner of the pages finds what is wrong in them."""

from pathlib import Path

import pytest

from tests.docs.likeness import is_like
from tests.docs.markdown import blocks_of, indented_code
from tests.docs.running import PageError, run_page
from tests.docs.shell import CommandError

APP = """\
```python title="app.py"
import perdure as df

app = df.App("page")

@app.orchestrator
async def greet(context: df.OrchestrationContext, name: str) -> str:
    return f"hello {name}"
```
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def page_of(tmp_path: Path, *parts: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text("\n\n".join(parts))
    return page


def fenced(language: str, *lines: str) -> str:
    return "\n".join((f"```{language}", *lines, "```"))


def test_blocks_share_a_namespace_and_may_await(tmp_path: Path, folder: Path) -> None:
    run_page(
        page_of(
            tmp_path,
            APP,
            fenced(
                "python",
                "from perdure.testing import environment",
                "async with environment(app) as env:",
                "    done = await env.run(greet, 'Ada')",
            ),
            fenced("python", "assert done.output == 'hello Ada'"),
        ),
        folder,
    )
    assert (folder / "app.py").read_text().startswith("import perdure")


def test_an_assertion_that_does_not_hold_fails_at_its_line(tmp_path: Path, folder: Path) -> None:
    page = page_of(tmp_path, "text", fenced("python", "x = 1", "assert x == 2"))
    with pytest.raises(AssertionError) as failed:
        run_page(page, folder)
    assert failed.traceback[-1].lineno + 1 == 5
    assert Path(failed.traceback[-1].path) == page


def test_a_test_that_a_block_defines_is_run(tmp_path: Path, folder: Path) -> None:
    broken = fenced(
        "python",
        "async def test_greeting(perdure_environment):",
        "    env = await perdure_environment(app)",
        "    assert (await env.run(greet, 'Ada')).output == 'goodbye'",
    )
    with pytest.raises(AssertionError):
        run_page(page_of(tmp_path, APP, broken), folder)
    run_page(page_of(tmp_path, APP, broken.replace("goodbye", "hello Ada")), folder)


def test_a_command_has_to_say_what_is_shown(tmp_path: Path, folder: Path) -> None:
    serve = fenced(
        "console",
        "$ perdure run app.py",
        "...",
        "$ perdure start greet --id g -i '\"Ada\"' --wait",
        "g  Completed",
        "...",
    )
    run_page(page_of(tmp_path, APP, serve), folder)
    wrong = serve.replace("Completed", "Failed")
    with pytest.raises(PageError, match="is shown to say"):
        run_page(page_of(tmp_path, APP, wrong), folder)


def test_a_command_that_fails_unannounced_fails_the_page(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(PageError, match="ended with"):
        run_page(page_of(tmp_path, fenced("bash", "perdure status nobody")), folder)
    run_page(page_of(tmp_path, fenced("console", "$ perdure status nobody", "error: ...", "...")), folder)


def test_an_unknown_command_or_language_fails_and_a_marked_block_does_not(
    tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(CommandError, match="systemctl"):
        run_page(page_of(tmp_path, fenced("bash", "systemctl restart perdure")), folder)
    with pytest.raises(PageError, match="no language"):
        run_page(page_of(tmp_path, fenced("", "what is this")), folder)
    with pytest.raises(PageError, match="klingon"):
        run_page(page_of(tmp_path, fenced("klingon", "Qapla'")), folder)
    mark = "<!-- not run: needs systemd -->"
    run_page(page_of(tmp_path, f"{mark}\n{fenced('bash', 'systemctl restart perdure')}"), folder)


def test_broken_json_fails(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(PageError, match="no json"):
        run_page(page_of(tmp_path, fenced("json", "{'a': 1}")), folder)


def test_hidden_setup_runs_and_a_mark_belongs_to_the_next_block_only(tmp_path: Path, folder: Path) -> None:
    page = page_of(tmp_path, "<!-- setup\nx = 1\n-->", fenced("python", "assert x == 1"))
    run_page(page, folder)
    marked = page_of(tmp_path, f"<!-- not run: because -->\n{fenced('python', '1/0')}", fenced("python", "1"))
    assert [block.not_run for block in blocks_of(marked)] == ["because", ""]
    loose = page_of(tmp_path, f"<!-- not run: because -->\n\nsome words\n\n{fenced('python', '1')}")
    assert [block.not_run for block in blocks_of(loose)] == [""]


def test_indented_code_is_found_and_lists_are_left_alone(tmp_path: Path) -> None:
    assert indented_code(page_of(tmp_path, "words", "    make demo")) == [3]
    assert indented_code(page_of(tmp_path, "- item", "    more of the item")) == []
    assert indented_code(page_of(tmp_path, fenced("text", "", "    inside a fence"))) == []


@pytest.mark.parametrize(
    ("shown", "said", "alike"),
    [
        ("a  Running", "a Running\n", True),
        ("a  Running", "a  Failed", False),
        (
            "started 2026-01-01 10:00:00.000 UTC (just now)",
            "started 2027-05-05 11:11:11.123 UTC (3 min ago)",
            True,
        ),
        ("first\n...\nlast", "first\nmiddle\nlast", True),
        ("first\n...", "second\n", False),
        ("a\nb", "a", False),
        ("a", "a\nb", False),
        ('{"id": "x"}', '{"id": "x", "more": 1}', True),
        ('{"id": "x"}', '{"id": "y"}', False),
        ('{"ok": true}', '{"ok": 1}', False),
        ("http://localhost:7071/", "http://localhost:45123/", True),
    ],
)
def test_what_is_alike(shown: str, said: str, alike: bool) -> None:
    assert is_like(shown, said) is alike
