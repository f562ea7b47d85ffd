"""What the network saw: the sheet of augmented views that the run has drawn of its own images."""

import base64
import io

from PIL import Image

from barlow import storage
from barlow.data.decoding import decode
from barlow.record import Record
from barlow.report.markup import el, join
from barlow.report.part import Part, missing

HOW = (
    "One row for each of a few images: the original on the left, then draws of each view. Two views of a row should "
    "still show the same thing to you; if they do not, the network cannot learn that they do."
)
MOST_PIXELS, MOST_BYTES = 30_000_000, 2**26
"""Of the sheet, which is some three million pixels and a few megabytes."""


def part(record: Record) -> Part:
    """The sheet of views."""
    path = record.path / "views.png"
    try:
        size = path.stat().st_size
        content = storage.read_bytes(path) if size <= MOST_BYTES else b""
    except FileNotFoundError:
        return missing(
            "views", "Views", "views.png, the sheet of augmented views that a run draws at its start, is missing."
        )
    if not content:
        return missing("views", "Views", f"views.png has {size:,} bytes: it is no sheet of views.")
    sheet = Image.fromarray(decode(content, channels=3, max_pixels=MOST_PIXELS))
    address = data_address(sheet, quality=82)
    picture = el("img", src=address, alt="originals and their augmented views", width=sheet.width, height=sheet.height)
    return Part("views", "Views", join([el("div", picture, class_="scroll sheet")]), HOW, {"views.png": content})


def data_address(picture: Image.Image, quality: int) -> str:
    """A picture as an address that holds it, in WebP."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
