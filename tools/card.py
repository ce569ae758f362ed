"""The pictures on the library's cards: `assets/card.webp` of each paper, 480×300 pixels."""

from pathlib import Path

from PIL import Image

SIZE = (480, 300)
_PAPERS = Path(__file__).parents[1] / "src" / "precis" / "papers"


def save_card(paper: str, picture: Image.Image, quality: int = 85) -> None:
    """Write the card of a paper; a picture of another shape is fitted into it, on white."""
    scale = min(SIZE[0] / picture.width, SIZE[1] / picture.height)
    size = (round(picture.width * scale), round(picture.height * scale))
    card = Image.new("RGB", SIZE, "white")
    card.paste(picture.resize(size, Image.Resampling.LANCZOS), ((SIZE[0] - size[0]) // 2, (SIZE[1] - size[1]) // 2))
    file = _PAPERS / paper / "assets" / "card.webp"
    file.parent.mkdir(exist_ok=True)
    card.save(file, quality=quality, method=6)
