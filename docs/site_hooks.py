"""What MkDocs does beside building pages: root files and result files join the site, notebooks become pages, plots
and formulas become part of the page, and nothing is loaded from the network."""

from __future__ import annotations

import json
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CODE_OF_CONDUCT.md": "code_of_conduct.md",
}
"""Files of the root that are pages of the site."""

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#)([^)#\s]+)")
LOADED = re.compile(r"<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=[\"']?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: Any) -> Files:
    """Add the root's pages, the results as data files, and a page for each notebook."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    for result in sorted((ROOT / "benchmarks" / "results").glob("*.json*")):
        files.append(File.generated(config, f"data/{result.name}", abs_src_path=str(result)))
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        text = _page_of(json.loads(notebook.read_text(encoding="utf-8")), notebook.name)
        files.append(File.generated(config, f"notebooks/{notebook.stem}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links lead to where the site has what they name."""
    here = PurePosixPath(page.file.src_uri)
    root = {page: source for source, page in PAGES.items()}.get(str(here))

    def moved(found: re.Match[str]) -> str:
        at = normpath(
            str((PurePosixPath("docs") / here.parent if root is None else PurePosixPath()) / found[2])
        )
        if at in PAGES:
            target = PAGES[at]
        elif at.startswith("benchmarks/results/"):
            target = at.replace("benchmarks/results/", "data/")
        else:
            target = relpath(at, "docs").replace(".ipynb", ".md")  # its page
        return found[1] + relpath(target, str(here.parent))

    return LINK.sub(moved, markdown)


def on_page_content(html: str, page: Any, **_: Any) -> str:
    """Plots take the colours of the page; formulas are MathML, which browsers draw by themselves."""

    def drawn(found: re.Match[str]) -> str:
        at = ROOT / "docs" / normpath(str(PurePosixPath(page.file.src_uri).parent / found[1]))
        return at.read_text(encoding="utf-8")

    def formula(found: re.Match[str]) -> str:
        inline = found[2] == "("
        return convert(found[3], display="inline" if inline else "block")

    html = re.sub(r'<img[^>]*src="([^"]*plots/[^"]+\.svg)"[^>]*>', drawn, html)
    return re.sub(
        r'(?s)<(?:span|div) class="arithmatex">(\\([(\[]))(.*?)\\[)\]]</(?:span|div)>', formula, html
    )


def on_post_build(config: Any) -> None:
    """A page that loads something from the network fails the build."""
    for page in sorted(Path(config["site_dir"]).rglob("*.html")):
        found = LOADED.search(page.read_text(encoding="utf-8"))
        if found:
            raise PluginError(f"{page} loads from the network: {found[0]}")


def _page_of(notebook: dict[str, Any], name: str) -> str:
    """The cells of a notebook as Markdown: code in fences, and what it printed below."""
    parts = [f'<a href="{name}" download>Download this notebook</a>']
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
            continue
        parts.append(f"```python\n{text}\n```")
        for output in cell["outputs"]:
            shown = output.get("text") or output.get("data", {}).get("text/plain") or ""
            parts.append(
                '<div class="output" markdown>\n\n```python\n' + "".join(shown).rstrip() + "\n```\n\n</div>"
            )
    parts.insert(1, parts.pop(0))  # the title first
    return "\n\n".join(parts)
