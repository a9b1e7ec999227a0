"""A matplotlib figure as SVG for a page: its colours are the page's, so dark and light are one picture."""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree as Tree

from memorization.report.style import COLOURS, GREY

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["svg_of"]

# Classes of the style sheet in place of colours: the page's strict policy takes no style attributes.
_CLASSES = {
    "#000000": "ink",
    "#ffffff": "paper",
    "#cccccc": "muted",
    GREY.lower(): "muted",
    **{colour.lower(): f"c{k}" for k, colour in enumerate(COLOURS)},
}
_KEPT = {
    *(
        "stroke-width",
        "stroke-dasharray",
        "stroke-dashoffset",
        "stroke-linejoin",
        "stroke-linecap",
        "stroke-miterlimit",
    ),
    *("opacity", "fill-opacity", "stroke-opacity", "font-size", "text-anchor"),
}


def svg_of(figure: "Figure", name: str, told: str) -> str:
    """Inline SVG: text as text in the page's font, no style attributes, no links, no metadata.

    Args:
        figure: of matplotlib; black is ink, the colours of `report.style` are the page's.
        name: of the picture in the page, in front of all ids.
        told: what it shows, in a sentence, for those who do not see it.
    """
    import matplotlib as mpl

    drawn = io.BytesIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(drawn, format="svg", transparent=True, metadata={"Date": None})
    root = Tree.fromstring(drawn.getvalue())
    for parent in root.iter():
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        _clean(element, name)
    for unneeded in ("width", "height", "version"):
        root.attrib.pop(unneeded, None)
    root.attrib |= {"role": "img", "aria-label": told, "class": "chart"}
    return Tree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    return name.rpartition("}")[2]


def _clean(element: Tree.Element, name: str) -> None:
    element.tag = _local(element.tag)
    found = {_local(key): value for key, value in element.attrib.items()}
    style = dict(one.split(":", 1) for one in found.pop("style", "").split(";") if ":" in one)
    style = {key.strip(): value.strip() for key, value in style.items()}
    if (size := re.match(r"([\d.]+)px", style.pop("font", ""))) is not None:
        style["font-size"] = size[1]
    for key in ("fill", "stroke"):
        if key in found:
            style.setdefault(key, found.pop(key))
    if element.tag == "text":
        style.setdefault("fill", "#000000")
    classes = [f"{key}-{_colour(style[key])}" for key in ("fill", "stroke") if key in style]
    found |= {key: value.removesuffix("px") for key, value in style.items() if key in _KEPT}
    if classes:
        found["class"] = " ".join(classes)
    if "id" in found:
        found["id"] = f"{name}-{found['id']}"
    for key, value in found.items():
        if value.startswith("#") and key == "href":
            found[key] = f"#{name}-{value[1:]}"
        found[key] = re.sub(r"url\(#", f"url(#{name}-", found[key])
    element.attrib.clear()
    element.attrib.update(found)


def _colour(value: str) -> str:
    return "none" if value == "none" else _CLASSES.get(value.lower(), "ink")
