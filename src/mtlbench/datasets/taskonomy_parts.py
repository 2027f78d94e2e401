"""Which images and labels of Taskonomy there are: by the split, what was downloaded, and what is to be left out."""

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlbench.datasets.taskonomy_files import Frame, Place, Tree
from mtlbench.datasets.taskonomy_reading import Found, broken_files

RGB = "rgb"


class Parts:
    """The images of each part, their files and what is wrong with them.

    tree, buildings: the files, and {part: buildings}.
    domains: {task: the domains that its labels are made of}; nothing else is looked at, but the images (rgb).
    sample: one image in this many.
    missing_buildings, broken_files: "fail" or "skip".

    frames: {part: images}. places: {(domain, building): where the files are}. absent: (domain, image) without a file
    that can be read. left_out: what was skipped, for the record. digest: of the marker of synthetic data, and of the
    names and sizes of all files. Raises ValueError for what is missing and not to be skipped.
    """

    def __init__(
        self,
        tree: Tree,
        buildings: Mapping[str, Sequence[str]],
        domains: Mapping[str, Sequence[str]],
        sample: int,
        missing_buildings: str,
        broken_files: str,
    ):
        self.tree, self.domains = tree, domains
        self.places: dict[tuple[str, str], Place] = {}
        self.absent: set[tuple[str, Frame]] = set()
        self.left_out: dict[str, Any] = {}
        self.frames: dict[str, list[Frame]] = {}
        missing = []
        for part, names in buildings.items():
            there = {name: tree.images(RGB, name) for name in names}
            missing += [name for name, (place, _) in there.items() if place is None]
            self.frames[part] = sorted(frame for _, found in there.values() for frame in found)[::sample]
        self._miss_buildings(missing, missing_buildings)
        groups = self._look(list(dict.fromkeys([RGB, *(name for own in domains.values() for name in own)])))
        self._miss_files(broken_files)
        if broken_files == "skip":
            self._check_files(groups)
        if not self.frames["train"]:
            raise ValueError(f"taskonomy: none of the split's training buildings has an image under {tree.folder}.")
        self._count()

    def path(self, domain: str, frame: Frame) -> Path:
        return self.tree.folder / self.places[domain, frame.building].name(frame)

    def has(self, domain: str, frame: Frame) -> bool:
        """Whether the image has a file of the domain that is not known to be damaged."""
        return (domain, frame) not in self.absent

    def all_frames(self) -> list[Frame]:
        return [frame for frames in self.frames.values() for frame in frames]

    def unlabelled(self, task: str, frame: Frame) -> bool:
        """Whether the file of a label, or of the mask that it needs, is not there or damaged."""
        return any((domain, frame) in self.absent for domain in self.domains[task])

    def _look(self, domains: Sequence[str]) -> list[list[Found]]:
        """Fills `places` and `absent`, makes `digest`; the files by domain and building."""
        used = defaultdict(list)
        for frames in self.frames.values():
            for frame in frames:
                used[frame.building].append(frame)
        folder, groups, digest = self.tree.folder, [], hashlib.sha256()
        marker = folder / "SYNTHETIC.json"
        if marker.exists():
            digest.update(marker.read_bytes())
        for domain in domains:
            for building in sorted(used):
                place, there = self.tree.images(domain, building)
                if place is not None:
                    self.places[domain, building] = place
                self.absent |= {(domain, frame) for frame in used[building] if frame not in there}
                names = [place.name(frame) for frame in used[building] if frame in there]
                groups.append([Found(name, (folder / name).stat().st_size) for name in names])
                digest.update("".join(f"{name}\0{size}\n" for name, size in groups[-1]).encode())
            if all(own != domain for own, _ in self.places) and used:
                tasks = [task for task, names in self.domains.items() if domain in names]
                raise ValueError(
                    f"taskonomy: the domain {domain} has no files under {folder}, in the layout {self.tree.layout}; "
                    f"{', '.join(tasks)} need{'s' if len(tasks) == 1 else ''} it.\n"
                    f"Download it, or choose other tasks: dataset.tasks=[...]."
                )
        self.digest = digest.hexdigest()[:16]
        return groups

    def _miss_buildings(self, missing: Sequence[str], policy: str) -> None:
        if not missing:
            return
        if policy == "fail":
            raise ValueError(
                f"taskonomy: {', '.join(sorted(missing))} of the split's buildings have no images (rgb) under "
                f"{self.tree.folder}, in the layout {self.tree.layout}.\nUnpack them there, or leave them out: "
                f"dataset.missing_buildings=skip (the record says which)."
            )
        self.left_out["buildings"] = sorted(missing)

    def _miss_files(self, policy: str) -> None:
        if not self.absent or policy == "skip":
            return
        domain, frame = min(self.absent)
        place = self.places.get((domain, frame.building))
        name = place.name(frame) if place else f"{domain} of {frame.building}, point {frame.point}, view {frame.view}"
        raise ValueError(
            f"taskonomy: {self.tree.folder / name} is missing, the label of an image ({len(self.absent):,} "
            f"{'is' if len(self.absent) == 1 else 'are'} missing in all).\nDownload it again, or go on without such "
            f"labels: dataset.broken_files=skip (the record says how many)."
        )

    def _check_files(self, groups: Sequence[Sequence[Found]]) -> None:
        """Damaged files are found before anything is trained; an image that is damaged is dropped."""
        broken = broken_files(self.tree.folder, groups)
        domains = {domain for domain, _ in self.places}
        for part, frames in self.frames.items():
            for frame in frames if broken else ():
                for domain in domains:
                    place = self.places.get((domain, frame.building))
                    if place is not None and place.name(frame) in broken:
                        self.absent.add((domain, frame))
            self.frames[part] = [frame for frame in frames if (RGB, frame) not in self.absent]
            if len(self.frames[part]) < len(frames):
                self.left_out[part] = {"images": len(frames) - len(self.frames[part])}

    def _count(self) -> None:
        """Adds the labels that are left out to `left_out`, and says it all."""
        for part, frames in self.frames.items():
            for task in self.domains if self.absent else ():
                number = sum(self.unlabelled(task, frame) for frame in frames)
                if number:
                    self.left_out.setdefault(part, {})[f"labels of {task}"] = number
        if self.left_out:
            warnings.warn(f"taskonomy: left out: {self.left_out}.", stacklevel=5)
