"""What the words of a header hint at: the body region, the contrast, fat suppression.

Descriptions are typed by people, in many languages and by many habits. Nothing here decides alone: see
`series_role` for what weighs how much.
"""

from __future__ import annotations

import re
import unicodedata

from stenosis_trt.engine.records import SeriesHeader

_REGIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("lumbar", re.compile(r"lumb|lomb|\bl(s|ss)?[ -]?spine|\blssp|\blws\b|lenden|腰")),
    ("thoracic", re.compile(r"thora|\bdors(al|ale|o)|\btl?[ -]?spine|\bbws\b|胸椎")),
    ("brain", re.compile(r"brain|\bhead|cereb|encephal|crani|\bcrane|schadel|\bkopf|\bhirn|脳|颅|头|頭")),
    ("pelvis", re.compile(r"pelvi|sacr|prosta|coccy")),
    ("trunk", re.compile(r"chest|breast|abdom|liver|kidney|renal|heart|cardia")),
    ("limb", re.compile(r"knee|shoulder|\bhips?\b|wrist|elbow|ankle|\bfoot\b|\bhand\b|femur|tibia|humerus")),
)
_NECK = re.compile(r"cerv|zervi|\bct?[ -]?spine|\bhws\b|neck|\bhals|颈|頸|頚")

# "C7-T1" and "C2/T2" name vertebrae: not preceded by such a one, "t1" and "t2" name a weighting.
_NO_VERTEBRA = r"(?<![ct]\d[-/ ])"
# A fat image is one half of a split; "T2 FAT" alone is short for saturated fat.
_SPLIT = r"(dixon|\bideal\b|\bflex\b)"
_NOT_SUPPRESSED = r"(?![ -]?(sat|sup))"
_CONTRASTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a localizer", re.compile(r"locali[sz]er|\blocs?\b|scout|survey|\bpilot\b|3[ -]?pl(ane)?\b")),
    ("STIR", re.compile(r"stir|tirm|\bir[ -]?fse|fse[ -]?ir\b")),
    ("FLAIR", re.compile(r"flair|dark[ -]?fluid")),
    ("diffusion", re.compile(r"\bdwi|\bdti|diffusion|\bdiff\b|\badc\b|\btrace\b|\bivim|\bep2d")),
    ("a myelogram", re.compile(r"myelogra|\bmyelo\b")),
    (
        "a fat image",
        re.compile(rf"^fat:|{_SPLIT}.*\bf(at)?\b{_NOT_SUPPRESSED}|\bfat\b{_NOT_SUPPRESSED}.*{_SPLIT}"),
    ),
    ("an opposed-phase image", re.compile(r"\bopp(osed)?\b|out[ -]?(of[ -]?)?phase")),
    ("T2*", re.compile(r"t2 ?\*|t2[ -]?star|\bmedic\b|\bmerge\b|\b[mb]?ffe\b|\bswi|\bhemo\b|\bgre\b")),
    ("T1", re.compile(_NO_VERTEBRA + r"(?<![a-z0-9])[se]?t1(?!\d)")),
    ("proton density", re.compile(r"\bpdw?\b|proton")),
)
_WITHOUT_SUPPRESSION = re.compile(
    r"\b(no|non|not|without|w/?o|ohne|sans|sin|senza)[ -]*(fs\b|fat\b([ -]?(sat|sup)\w*)?)"
)
_T2 = re.compile(_NO_VERTEBRA + r"t2(?!\d| ?\*|[ -]?star)")
_FAT_SUPPRESSED = re.compile(r"\bfs\b|\bfat\b|fat[ -]?(sat|sup)|\bspa?ir\b|\bwater\b|dixon.*\bw\b")
"""Fat that is named at all is mostly named because it is dark; a fat image is told before."""


def plain(text: str) -> str:
    """Lower case, without accents, words parted by spaces instead of underscores."""
    decomposed = unicodedata.normalize("NFKD", text.lower())
    return "".join(c for c in decomposed if not unicodedata.combining(c)).replace("_", " ").strip()


def words(series: SeriesHeader) -> str:
    """What a series is called, in plain form: its description, or its protocol where nothing is described.

    The protocol of some vendors is the name of the whole examination ("C-SPINE W STIR"), which says nothing
    of the contrast of one series.
    """
    return plain(series.description) or plain(series.protocol)


def all_words(series: SeriesHeader) -> str:
    """Description and protocol, parted by a bar: where an examination's name counts too."""
    return f"{plain(series.description)} | {plain(series.protocol)}"


def names_neck(text: str) -> bool:
    """Whether a plain text names the neck."""
    return bool(_NECK.search(text))


def other_region(text: str) -> str:
    """The region a plain text names, or ""; one that names the neck, alone or with another, names none."""
    if names_neck(text):
        return ""
    return next((name for name, pattern in _REGIONS if pattern.search(text)), "")


def contrast_hint(text: str) -> str:
    """The contrast other than T2 that a plain text names, or ""."""
    return next((name for name, pattern in _CONTRASTS if pattern.search(text)), "")


def says_t2(text: str) -> bool:
    """Whether a plain text names T2 (not T2*, and not the vertebra)."""
    return bool(_T2.search(text))


def says_fat_suppressed(text: str) -> bool:
    """Whether a plain text says that fat is dark: suppressed, or the water image of a Dixon split."""
    return bool(_FAT_SUPPRESSED.search(_WITHOUT_SUPPRESSION.sub(" ", text)))
