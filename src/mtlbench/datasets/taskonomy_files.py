"""Where Taskonomy's files are: three layouts of folders, the split's CSV.

omnidata   <domain>/taskonomy/<building>/point_<p>_view_<v>_domain_<suffix>.png
original   <building>/<domain>/point_<p>_view_<v>_domain_<suffix>.png
standley   <domain>/<building>/point_<p>_view_<v>.png

A suffix is not always the domain's name (segment_semantic: segmentsemantic; class_scene: class_places), so files are
known by point and view alone.
"""

import os
import re
from pathlib import Path
from typing import NamedTuple

FOLDERS = {
    "rgb": ("rgb",),
    "depth_zbuffer": ("depth_zbuffer", "depth"),
    "depth_euclidean": ("depth_euclidean", "mist"),
    "normal": ("normal",),
    "principal_curvature": ("principal_curvature", "curvature"),
    "reshading": ("reshading", "reshade"),
    "edge_texture": ("edge_texture", "edge2d"),
    "edge_occlusion": ("edge_occlusion", "edge"),
    "keypoints2d": ("keypoints2d", "keypoint2d"),
    "keypoints3d": ("keypoints3d", "keypoint"),
    "segment_semantic": ("segment_semantic", "segmentsemantic"),
    "class_scene": ("class_scene", "places"),
    "mask_valid": ("mask_valid",),
}
"""{domain: its folder's name, and the name in the authors' own trees}"""

LAYOUTS = {
    "omnidata": "{domain}/taskonomy/{building}",
    "original": "{building}/{domain}",
    "standley": "{domain}/{building}",
}

FILE = re.compile(r"point_(?P<point>\d+)_view_(?P<view>\d+)(?P<end>(?:_domain_\w+)?\.(?:png|npy))")

HEADER = ["id", "train", "val", "test"]

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")

OBTAIN = (
    "Taskonomy is given out after its licence form (github.com/StanfordVL/taskonomy, or omnitools.download with the "
    "component taskonomy, the subset tiny and the domains of your tasks). Put it into {folder}, set "
    "machine.data=<folder above it>, or write a small synthetic one:\n"
    "  python -m mtlbench.synthesize dataset=taskonomy machine.data={data}"
)


class Frame(NamedTuple):
    """One image."""

    building: str
    point: int
    view: int


class Place(NamedTuple):
    """Where the files of one domain of one building are: the folder below the dataset's, and how names end."""

    folder: str
    end: str

    def name(self, frame: Frame) -> str:
        """Of one file, below the dataset's folder."""
        return f"{self.folder}/point_{frame.point}_view_{frame.view}{self.end}"


class Tree:
    """The files below `folder`. layout: one of LAYOUTS, or null for the one that is there.

    Raises ValueError where there is none, or more than one and no choice, with what to do.
    """

    def __init__(self, folder: Path, layout: str | None = None):
        self.folder = folder
        if layout is not None and layout not in LAYOUTS:
            raise ValueError(f"dataset.layout={layout}: {', '.join(LAYOUTS)} or null is expected.")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file; a folder is expected. Unpack it: {folder} must hold folders.")
        there = [name for name in ([layout] if layout else LAYOUTS) if self._has(name)]
        if len(there) > 1:
            raise ValueError(f"{folder} holds files in {len(there)} layouts. Choose one: dataset.layout={there[0]}.")
        if not there:
            packed = [name for name in _names(folder) if name.endswith(ARCHIVES)]
            if packed:
                raise ValueError(
                    f"{folder / packed[0]} is an archive ({len(packed):,} are there); folders are expected.\n"
                    f"Unpack each in {folder}, so that it holds for example {folder}/rgb/taskonomy/hanson/*.png."
                )
            where = f" in the layout {layout}" if layout else ""
            told = OBTAIN.format(folder=folder, data=folder.parent)
            raise ValueError(f"taskonomy: no images{where} under {folder}.\n{told}")
        self.layout = there[0]

    def _has(self, layout: str) -> bool:
        if layout == "original":
            return any(self._images(building / "rgb") for building in self._folders(self.folder))
        below = self.folder / "rgb" / ("taskonomy" if layout == "omnidata" else "")
        return any(self._images(building) for building in self._folders(below))

    @staticmethod
    def _folders(folder: Path) -> list[Path]:
        return [folder / name for name in _names(folder) if (folder / name).is_dir()]

    @staticmethod
    def _images(folder: Path) -> bool:
        return any(FILE.fullmatch(name) for name in _names(folder))

    def place(self, domain: str, building: str) -> Path | None:
        """The folder of a domain and a building; None where it is missing. Raises ValueError where it is a file."""
        for name in FOLDERS[domain]:
            path = self.folder / LAYOUTS[self.layout].format(domain=name, building=building)
            for part in (path, *path.parents[: len(path.parts) - len(self.folder.parts) - 1]):
                packed = next((p for end in ARCHIVES if (p := part.with_name(part.name + end)).is_file()), None)
                if part.is_file() or (packed and not part.exists()):
                    raise ValueError(f"{packed or part} is a file; a folder {part} is expected. Unpack it there.")
            if path.is_dir():
                return path
        return None

    def images(self, domain: str, building: str) -> tuple[Place | None, set[Frame]]:
        """Where the files of one domain of one building are, and of which images; (null, none) without a folder.

        Other files in the same folder are passed over.
        """
        place = self.place(domain, building)
        matches = [FILE.fullmatch(name) for name in _names(place)] if place else []
        kind = "npy" if domain == "class_scene" else "png"
        ends: dict[str, set[Frame]] = {}
        for match in matches:
            if match and match["end"].endswith(f".{kind}"):
                frame = Frame(building, int(match["point"]), int(match["view"]))
                ends.setdefault(match["end"], set()).add(frame)
        if not ends:
            return None, set()
        end, frames = max(ends.items(), key=lambda item: (len(item[1]), item[0]))
        return Place(place.relative_to(self.folder).as_posix(), end), frames


def read_split(path: Path) -> dict[str, list[str]]:
    """{train, val, test: buildings} of a file train_val_test_<name>.csv; its lines may end in CR alone.

    Raises ValueError for a missing file, a wrong header, or a row without exactly one 1.
    """
    if not path.is_file():
        raise ValueError(
            f"{path} is missing, the list of buildings. It is in data/assets/splits_taskonomy.zip of "
            f"github.com/StanfordVL/taskonomy: unpack it into {path.parent}, or name another with dataset.split_file."
        )
    try:
        lines = path.read_text().splitlines()  # by CR, LF or both: the published file has CR alone
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as text ({error}). A CSV is expected; unpack archives.") from error
    rows = [[cell.strip() for cell in line.split(",")] for line in lines if line.strip()]
    if not rows or rows[0] != HEADER:
        raise ValueError(
            f"{path}: the first line must be {','.join(HEADER)}, found {','.join(rows[0]) if rows else 'nothing'!r}."
        )
    parts: dict[str, list[str]] = {name: [] for name in HEADER[1:]}
    for row in rows[1:]:
        if len(row) != 4 or sorted(row[1:]) != ["0", "0", "1"]:
            raise ValueError(f"{path}: {','.join(row)!r}: a building and one 1 among train, val and test is expected.")
        parts[HEADER[1 + row[1:].index("1")]].append(row[0])
    twice = [row[0] for i, row in enumerate(rows) if row[0] in {other[0] for other in rows[:i]}]
    if twice:
        raise ValueError(f"{path}: {', '.join(twice)} is there more than once.")
    return {name: sorted(buildings) for name, buildings in parts.items()}


def _names(folder: Path) -> list[str]:
    """Sorted names in a folder, none where it is missing. Raises ValueError where it may not be read."""
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError as error:
        raise ValueError(
            f"{folder} may not be read ({error.strerror}). Give yourself the right: chmod -R u+rX {folder}"
        ) from error
