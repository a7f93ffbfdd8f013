"""MkDocs hook: links that leave docs/ work on the site as they do on GitHub.

MkDocs knows the files of docs/ alone. Each file elsewhere in the repository that a page links to becomes part of the site under
`repository/`: Markdown as a page, everything else as it is. A link to a file that doesn't exist stays as it is, and
MkDocs warns about it.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).resolve().parents[1]
REPOSITORY = DOCS.parent
TARGET = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")  # of a Markdown link or image, without its anchor


def on_files(files: Files, config: MkDocsConfig) -> Files:
    pages = list(files.documentation_pages())
    while pages:
        for uri, path in _links_outside(pages.pop()):
            if uri not in files.src_uris:
                files.append(file := File.generated(config, uri, abs_src_path=str(path)))
                if file.is_documentation_page():
                    pages.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Each link relative to the page's place on the site."""

    def relative(match: re.Match[str]) -> str:
        uri = _uri(_path(page.file, match[0]))
        return posixpath.relpath(uri, posixpath.dirname(page.file.src_uri)) if uri in files.src_uris else match[0]

    return TARGET.sub(relative, markdown)


def _links_outside(page: File) -> Iterator[tuple[str, Path]]:
    for target in TARGET.findall(page.content_string):
        path = _path(page, target)
        if path.is_file() and path.is_relative_to(REPOSITORY) and not path.is_relative_to(DOCS):
            yield _uri(path), path


def _path(page: File, target: str) -> Path:
    """The file that a link of the page names. A page that a hook wrote lies nowhere; its links start at docs/."""
    return (Path(page.abs_src_path or DOCS / page.src_uri).parent / target).resolve()


def _uri(path: Path) -> str:
    """The file's place on the site."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"repository/{path.relative_to(REPOSITORY).as_posix()}" if path.is_relative_to(REPOSITORY) else ""
