"""NYUv2's classes and parts: 894 labels to 40 and 13 classes, the official test images, LibMTL's validation images.

They are what classMapping40.mat, class13Mapping.mat and splits.mat hold (ankurhanda/nyuv2-meta-data), so that none
of these files is needed. Ranges are inclusive, labels and classes begin at 1 and 0 is no label.
"""

import numpy as np
from numpy import ndarray

from mtlbench.task import IGNORE

OTHER_STRUCTURE = """
8, 25, 33, 38, 51, 53, 57-58, 62, 65, 79, 94, 104, 112, 134, 153, 215-216, 223, 225, 238, 241-242, 256, 295,
301, 339, 342, 354, 363, 372, 380, 392, 408, 412, 453, 456, 463, 477, 497, 541, 550, 553, 567, 573, 582, 591,
609, 612, 615, 642, 645, 657-659, 663, 667-668, 686, 700, 702, 777-778, 782, 850, 861, 868, 874
"""
OTHER_FURNITURE = """
12, 43, 48, 50, 87, 106, 111, 161, 163, 174, 183, 204, 214, 219, 221, 224, 236, 262, 278, 291, 298, 313,
343-344, 356, 359, 373, 393, 401, 414, 418-419, 430, 443-444, 447-448, 457-458, 460, 462, 475, 479, 485-486,
493-494, 498-499, 509-510, 515, 521, 524, 540, 549, 551, 554, 556, 558, 576, 580, 608, 625, 703, 734, 770, 772,
797, 800, 803-804, 813-815, 820, 829, 835, 858, 863, 882, 892
"""

CLASSES = (
    ("wall", "21", 12),
    ("floor", "11", 5),
    ("cabinet", "3", 6),
    ("bed", "157", 1),
    ("chair", "5", 4),
    ("sofa", "83", 9),
    ("table", "19", 10),
    ("door", "28", 12),
    ("window", "59", 13),
    ("bookshelf", "88", 6),
    ("picture", "64", 8),
    ("counter", "7", 6),
    ("blinds", "80", 13),
    ("desk", "36", 10),
    ("shelves", "42", 6),
    ("curtain", "89", 13),
    ("dresser", "169", 6),
    ("pillow", "119", 7),
    ("mirror", "122", 7),
    ("floor mat", "143", 5),
    ("clothes", "141", 7),
    ("ceiling", "4", 3),
    ("books", "85", 2),
    ("refridgerator", "17", 6),
    ("television", "172", 11),
    ("paper", "15", 7),
    ("towel", "135", 7),
    ("shower curtain", "123", 7),
    ("box", "26", 7),
    ("whiteboard", "45", 7),
    ("person", "331", 7),
    ("night stand", "158", 6),
    ("toilet", "124", 7),
    ("sink", "24", 7),
    ("lamp", "144", 7),
    ("bathtub", "136", 7),
    ("bag", "55", 7),
    ("otherstructure", OTHER_STRUCTURE, 7),
    ("otherfurniture", OTHER_FURNITURE, 6),
    ("otherprop", "", 7),
)
"""(name, which of the 894 labels, which of the 13 classes) of the 40 classes; all other labels are otherprop."""

NAMES_13 = (
    "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa", "table", "tv", "wall",
    "window",
)  # fmt: skip

LABELS, IMAGES = 894, 1449

TEST = """
1-2, 9, 14-18, 21, 28-43, 46-47, 56-57, 59-63, 76-79, 84-91, 117-119, 125-129, 131-134, 137, 153-155, 167-169,
171-176, 180-202, 207-212, 220-222, 250, 264, 271-273, 279-285, 296-302, 310-312, 315-317, 325-335, 351-352,
355-364, 384-390, 395-397, 411-414, 430-435, 441-448, 462-466, 469-477, 508-513, 515-526, 531-533, 537-539,
549-551, 555-571, 579-583, 591-594, 603-607, 612-613, 617-621, 633-638, 644-645, 650-651, 656-658, 663-664,
668-673, 676-681, 686-690, 693-694, 697-699, 706-713, 717-718, 724-728, 731-734, 743-744, 759-787, 800-804,
810-814, 821-823, 833-846, 850-852, 857-862, 869-871, 906-908, 917-919, 926-928, 932-935, 945-947, 959-962,
965-967, 970-977, 991-995, 1001-1004, 1010-1012, 1021-1023, 1032-1034, 1038-1039, 1048-1049, 1052-1053,
1057-1058, 1075-1084, 1088-1096, 1098-1104, 1106-1109, 1117-1119, 1123-1131, 1135-1136, 1144-1158, 1162-1167,
1170-1171, 1174-1176, 1179-1184, 1192-1196, 1201-1212, 1216-1220, 1226-1230, 1233-1235, 1247-1250, 1254-1265,
1275-1280, 1285-1295, 1297-1299, 1302-1308, 1314-1315, 1329-1332, 1335-1340, 1347-1349, 1353-1356, 1364-1365,
1368-1369, 1384-1391, 1394-1401, 1407-1414, 1421-1424, 1430-1433, 1441-1449
"""
"""The 654 official test images, from 1; the other 795 are for training."""

LIBMTL_VALIDATION = """
3, 4, 10, 26, 27, 36, 45, 46, 55, 56, 58, 66, 74, 75, 81, 82, 91, 92, 93, 94, 99, 106, 109, 113, 114, 120, 122,
127, 131, 144, 148, 157, 161, 165, 168, 170, 171, 182, 185, 186, 187, 202, 204, 208, 209, 212, 221, 227, 228,
230, 240, 241, 242, 243, 249, 254, 256, 264, 271, 273, 284, 285, 294, 296, 297, 298, 299, 302, 304, 307, 320,
326, 329, 337, 339, 353, 362, 365, 370, 371, 373, 375, 376, 378, 381, 387, 391, 397, 399, 403, 404, 406, 407,
417, 423, 424, 433, 448, 453, 465, 472, 474, 484, 486, 493, 494, 495, 496, 499, 501, 506, 523, 524, 532, 539,
561, 569, 581, 583, 586, 588, 596, 599, 601, 618, 623, 625, 631, 632, 636, 639, 644, 645, 653, 656, 661, 669,
672, 673, 682, 684, 692, 696, 697, 702, 704, 708, 714, 720, 724, 730, 732, 737, 740, 766, 767, 780, 783, 791
"""
"""Of MTAN's training files, from 0: the 159 that LibMTL's data_split.json held out (Elich et al. 2023)."""


def numbers(ranges: str) -> list[int]:
    """The numbers of "1-3, 7" in their order: 1, 2, 3, 7."""
    found = []
    for part in ranges.replace("\n", " ").split(","):
        first, _, last = part.partition("-")
        if first.strip():
            found += range(int(first), int(last or first) + 1)
    return found


def mapping_40() -> ndarray:
    """mapClass: of each of the 894 labels the class from 1 to 40, uint8 [894]."""
    found = np.full(LABELS, len(CLASSES), np.uint8)
    for k, (_, labels, _) in enumerate(CLASSES, start=1):
        found[np.array(numbers(labels), int) - 1] = k
    return found


def mapping_13() -> ndarray:
    """labels13: of each of the 40 classes the class from 1 to 13, uint8 [40]."""
    return np.array([k for *_, k in CLASSES], np.uint8)


def targets(classes: int, to_40: ndarray, to_13: ndarray) -> ndarray:
    """What each stored label 0 to 894 is as a target, uint8 [895].

    13 and 40 classes: class - 1, and IGNORE for 0 (MTAN, IMTL, the survey). 41: 0 is a class of its own (ASTMT).
    """
    found = np.concatenate([[0], to_40]).astype(np.uint8)
    if classes == 13:
        found = np.concatenate([[0], to_13]).astype(np.uint8)[found]
    return found if classes == 41 else np.where(found == 0, IGNORE, found - 1).astype(np.uint8)


def names_of(classes: int) -> tuple[str, ...]:
    """The names of 13, 40 or 41 classes, in the order of the targets."""
    names = tuple(name for name, *_ in CLASSES)
    return {13: NAMES_13, 40: names, 41: ("unlabelled", *names)}[classes]


def official_split(images: int) -> tuple[list[int], list[int]]:
    """(training, test) images, from 0."""
    test = [i - 1 for i in numbers(TEST)]
    return sorted(set(range(images)) - set(test)), test
