"""Records into HTML, by the templates. Everything is escaped; what a browser may load is nothing."""

import base64
import hashlib
import importlib.util
from typing import Any

from birdsonnx import __version__
from birdsonnx.errors import InstallationError
from birdsonnx.extras import how_to_install

GENERATOR = "birdsonnx report"
"""By which a page of ours is known: the content of its `<meta name="generator">`."""


def require_templates() -> None:
    """For callers that work for a while before they write. Raises InstallationError without Jinja2."""
    if importlib.util.find_spec("jinja2") is None:
        raise InstallationError(f"a report needs Jinja2; {how_to_install('report')}")


def is_ours(head: bytes) -> bool:
    """Whether a file that begins so is a page that was written here."""
    return b'<meta name="generator" content="' + GENERATOR.encode() in head


def rendered(template: str, script: str, **content: Any) -> bytes:
    """A whole page as UTF-8.

    Args:
        template: its name in `templates/`.
        script: that of its JavaScript, which follows what all pages have.
        content: what the template reads.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("birdsonnx.reporting.page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    loader = environment.loader
    assert loader is not None
    style = loader.get_source(environment, "page.css")[0].strip()
    code = "\n".join(loader.get_source(environment, name)[0].strip() for name in ("page.js", script))
    page = environment.get_template(template).render(
        **content,
        generator=f"{GENERATOR} {__version__}",
        style=style,
        script=code,
        policy=_policy(style, code),
    )
    return page.encode()


def _policy(style: str, script: str) -> str:
    """The Content-Security-Policy: this style, this script, pictures in the page, and nothing else."""
    return (
        "default-src 'none'; img-src data:; "
        f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
