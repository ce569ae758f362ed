"""The built-in sample: tiles of photographs that come with scikit-image and scikit-learn."""

from pathlib import Path

from precis.data.embedded import photo
from precis.data.images import resize, write_image

NAMES = ("astronaut", "brick", "cat", "china", "coffee", "flower", "grass", "motorcycle_left")
TILE, SIDE, MOST = 64, 32, 60


def write_tiles(folder: Path) -> Path:
    """Up to 60 tiles of 64 × 64 pixels of each photograph, at half their size, as PNG in a sub-folder each."""
    for name in NAMES:
        pixels = photo(name)
        place = folder / name.removesuffix("_left")
        place.mkdir(parents=True)
        corners = [(y, x) for y in range(0, pixels.shape[1] - TILE + 1, TILE)
                   for x in range(0, pixels.shape[2] - TILE + 1, TILE)]  # fmt: skip
        for i, (y, x) in enumerate(corners[:: max(1, len(corners) // MOST)][:MOST]):
            write_image(place / f"{i:02d}.png", resize(pixels[:, y : y + TILE, x : x + TILE], (SIDE, SIDE)))
    return folder
