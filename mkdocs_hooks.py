"""Hooks of the documentation site: pages from outside docs/, and links that work there and here.

The Markdown files link to each other as they lie in the repository. On the site, a link to a page
or image becomes one to the site's; a link to any other file becomes one to the repository if
mkdocs.yml sets `repo_url`, and plain text if it does not.
"""

import functools
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parent
# Page of the site, and its source in the repository.
PAGES = {
    "index.md": "README.md",
    "benchmarks.md": "benchmarks/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
}
IMAGES = (".png", ".jpg", ".svg", ".gif", ".webp")
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\[\]]*\](?:\([^()]*\))?)*)\]\(([^()\s]+)\)")
SRC = re.compile(r'(?<=\ssrc=")[^"]+(?=")')  # Of images in HTML.
CODE = re.compile(r"(^```.*?^```$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)


def sources():
    """Source in the repository of every page and image of the site, by its place on the site."""
    docs = {
        path.relative_to(ROOT / "docs").as_posix(): path.relative_to(ROOT).as_posix()
        for path in (ROOT / "docs").rglob("*")
        if path.suffix in (".md", *IMAGES)
    }
    models = {
        f"models/{path.name}": path.relative_to(ROOT).as_posix()
        for path in (ROOT / "deepfill_jax" / "trained").glob("*.md")
    }
    images = {
        path.relative_to(ROOT).as_posix(): path.relative_to(ROOT).as_posix()
        for path in (ROOT / "benchmarks").rglob("*")
        if path.suffix in IMAGES
    }
    return {**docs, **PAGES, **models, **images}


def site_link(target, page, places, repository):
    """A link of the repository as a link of the site; None where the site has nothing to link to.

    Args:
        target: The link as the source of the page has it.
        page: The page's place on the site.
        places: See `sources`.
        repository: Address of the repository's files, or "".

    Raises:
        FileNotFoundError: There is no such file in the repository.
    """
    if re.match(r"[a-z]+:|#", target):
        return target
    path, hash, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(places[page]), path))
    if not (ROOT / path).exists():
        raise FileNotFoundError(f"{places[page]} links to {path}, which does not exist.")
    for place, source in places.items():
        if source == path:
            return posixpath.relpath(place, posixpath.dirname(page) or ".") + hash + anchor
    return f"{repository}/{path}" if repository else None


def rewrite(markdown, page, places, repository=""):
    """A page's Markdown with the links of the site; links to nothing keep their text."""

    def replace(match):
        bang, text, target = match.groups()
        link = site_link(target, page, places, repository)
        text = LINK.sub(replace, text)
        return text if link is None else f"{bang}[{text}]({link})"

    # Code may look like links.
    parts = CODE.split(markdown)
    protected = dict(enumerate(parts[1::2]))
    text = "".join(part if i % 2 == 0 else f"\0{i // 2}\0" for i, part in enumerate(parts))
    text = LINK.sub(replace, text)
    text = SRC.sub(lambda found: site_link(found[0], page, places, repository) or "", text)
    return re.sub("\0(\\d+)\0", lambda found: protected[int(found[1])], text)


def on_files(files, config):
    """Adds the pages and images that lie outside docs/."""
    from mkdocs.structure.files import File

    for place, source in sources().items():
        if not source.startswith("docs/"):
            files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Rewrites the links of a page."""
    del files
    repository = f"{config.repo_url.rstrip('/')}/blob/main" if config.repo_url else ""
    return rewrite(markdown, page.file.src_uri, _sources(), repository)


_sources = functools.cache(sources)
