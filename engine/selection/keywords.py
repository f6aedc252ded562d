"""Keywords of series descriptions: body region, contrast, fat suppression and contrast agent.

Descriptions are free text. English, German, French, Spanish, Italian, Portuguese, Polish, Russian, Turkish,
Chinese, Japanese and Korean are recognised; ambiguous words are left out. These functions only report what a
text says: `eligibility` and `ranking` decide what follows from it.
"""

from __future__ import annotations

import re
import unicodedata

from stenosis_trt.engine.records import SeriesHeader

_LETTERS = str.maketrans({"ı": "i", "ł": "l", "ß": "ss", "ø": "o", "đ": "d", "_": " "})
"""Letters that Unicode does not decompose into an ASCII letter and a diacritic."""


def normalise_text(text: str) -> str:
    """Return the text in lower case, without diacritics, with spaces in place of underscores.

    Korean syllables are recomposed, so that they match as they are written.
    """
    decomposed = unicodedata.normalize("NFKD", text.lower())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare).translate(_LETTERS).strip()


def _any_of(*patterns: str) -> re.Pattern[str]:
    """Return one pattern of all alternatives, each normalised like the text."""
    return re.compile("|".join(normalise_text(pattern) for pattern in patterns))


# German abbreviates the spine as HWS, BWS, LWS and the vertebrae as HWK, BWK, LWK; Russian abbreviates its
# sections as ШОП (шейный отдел позвоночника), ГОП, ПОП and ПКОП.
_REGIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "lumbar",
        _any_of(
            r"lumb|lomb|\bl(s|ss)?[ -]?spine|\blssp",
            r"\blw[sk]\b|lenden",
            r"lędźw|kr(ęgosłup|ęg)?\.? l[ -/]?s\b",
            r"пояснич|люмб|\bпк?оп\b",
            r"腰|요추|요천추",
        ),
    ),
    (
        "thoracic",
        _any_of(
            r"thora|tora[ck]|\bdors(al|ale|o)|\btl?[ -]?spine",
            r"\bbw[sk]\b|brustwirbel",
            r"piersiow|грудн|торак|\bгоп\b",
            r"胸椎|흉추",
        ),
    ),
    (
        "brain",
        # The spinal cord is "спинной мозг", cerebrospinal fluid "脑脊液": the words for brain are in both.
        _any_of(
            r"brain|\bhead|cereb|encephal|encefal|[ck]rani|\bcrane",
            r"schädel|\bkopf|\b(ge)?hirn|cerveau|\btête\b|cervel|\btesta\b|cabe[cz]a",
            r"mózg|\bgłow[aye]|czaszk|головн|\bчереп|beyin|\bkafa",
            r"[脳脑腦](?!脊)|颅|顱|头|頭|뇌(?!척)|두부|머리",
        ),
    ),
    (
        "pelvis",
        _any_of(r"pelvi|sacr|prosta|coccy|cervix", r"\bbecken|miednic|крестц", r"骨盆|骨盤|골반|천추"),
    ),
    ("trunk", re.compile(r"chest|breast|abdom|liver|kidney|renal|heart|cardia")),
    ("limb", re.compile(r"knee|shoulder|\bhips?\b|wrist|elbow|ankle|\bfoot\b|\bhand\b|femur|tibia|humerus")),
)
# Not the neck, but that of the uterus or femur: cervix, szyjka, шейка, cuello uterino, 宫颈, 股骨颈.
# Left out as ambiguous: 경부 (also of the uterus), 목 and 首 (also in the words for wrist).
_NOT_OF_WOMB_OR_FEMUR = r"(?! (uter|femor|de))"
_NECK = _any_of(
    r"cerv(?!eau|el|ix|ice\b)|\bct?[ -]?spine|\bc[ -]?sp\b|neck",
    r"zervi|\bhw[sk]\b|\bhals",
    rf"\bcuello\b{_NOT_OF_WOMB_OR_FEMUR}|\bcollo\b{_NOT_OF_WOMB_OR_FEMUR}|pescoço",
    r"szyj(?!k)|\bszyi\b|шейн|\bше[яи]\b|цервик|\bшоп\b|servi[kc]al|\bboyun|\bboyn",
    r"(?<![宫宮骨])[颈頸頚]|けい椎|경추|경수",
)

# Ranges of vertebrae: "C2-C7", "C3/4", "C7-T1", "C2 bis Th2"; never upwards, since "T2 - C2" is a weighting
# and a vertebra. Cyrillic С and Т look like the Latin letters and are as common.
_CERVICAL, _THORACIC, _LUMBAR = r"[cс] ?\d", r"(?:th|[tтd]) ?\d{1,2}", r"[lл] ?\d"
_TO = r" ?(?:[-–/]|\b(?:to|bis|au|al|do|по)\b) ?"
_SPANS = (
    rf"{_CERVICAL}(?:{_TO}(?:[cс]?\d|{_THORACIC}|{_LUMBAR})(?!\d))+",
    rf"{_THORACIC}(?:{_TO}(?:{_THORACIC}|{_LUMBAR})(?!\d))+",
    # Separated by a space only: accepted if a weighting follows.
    rf"[cс]\d (?:[cс]\d|{_THORACIC})(?=.*[tт][12](?!\d))",
)
_FROM_TO = re.compile(rf"(?<![a-zа-я\d])(?:{'|'.join(_SPANS)})(?![a-zа-я\d])")
# "C7 T1" may be a disc or a weighting after a vertebra; it counts as neither.
_NO_VERTEBRA = r"(?<![ctст]\d[-/ ])"
# A fat image is one part of a Dixon acquisition; "T2 FAT" alone is short for fat saturation.
_SPLIT = r"(dixon|\bideal\b|\bflex\b)"
_NOT_SUPPRESSED = r"(?![ -]?(sat|sup))"
_CONTRASTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a localizer",
        _any_of(
            r"lo[ck]ali[sz](er|at|ad|z)|\blocs?\b|scout|survey|\bpilot\b|3[ -]?pl(ane)?\b",
            r"übersicht|repérage|\bcentrage\b|локалайз|локализатор|\bобзорн",
            r"定位|位置決め|位置决め|로컬라이저|스카우트",
        ),
    ),
    ("STIR", re.compile(r"stir|tirm|\bir[ -]?fse|fse[ -]?ir\b")),
    ("FLAIR", re.compile(r"flair|dark[ -]?fluid")),
    (
        "diffusion",
        _any_of(
            r"\bdwi|\bdti|diffusion|\bdiff\b|\badc\b|\btrace\b|\bivim|\bep2d",
            r"difusi[oó]n|difusão|dyfuzj|диффуз|difüzyon|弥散|彌散|扩散|拡散|확산",
        ),
    ),
    ("a myelogram", _any_of(r"m(y|i|iy)elogra|\bmyelo\b", r"миелогра|水成像|脊[髓髄]造影|ミエロ|척수조영")),
    (
        "a fat image",
        re.compile(rf"^fat:|{_SPLIT}.*\bf(at)?\b{_NOT_SUPPRESSED}|\bfat\b{_NOT_SUPPRESSED}.*{_SPLIT}"),
    ),
    ("an opposed-phase image", re.compile(r"\bopp(osed)?\b|out[ -]?(of[ -]?)?phase")),
    ("T2*", re.compile(r"[tт]2 ?\*|t2[ -]?star|\bmedic\b|\bmerge\b|\b[mb]?ffe\b|\bswi|\bhemo\b|\bgre\b")),
    ("T1", re.compile(_NO_VERTEBRA + r"(?<![a-z0-9])[se]?[tт]1(?!\d)")),
    ("proton density", re.compile(r"\bpdw?\b|proton|протон")),
)
_T2 = re.compile(_NO_VERTEBRA + r"[tт]2(?!\d| ?\*|[ -]?star)")

_FAT = (
    r"\bfs\b|\bfat\b([ -]?(sat|sup)\w*)?|\bfatsat",
    r"fett(ges|supp|unterdr|sätt)\w*",
    r"(sat|sup|sop)\w*[ .-]*(de la |de |del |do |da )?(graisse|grasa|grasso|gordura|tłuszcz)\w*",
    r"(graisse|grasa|grasso|gordura|tłuszcz\w*)[ .-]*(sat|sup|sop)\w*",
    r"жироподав\w*|подав\w* (сигнала )?(от )?жир\w*|yağ bask\w*",
    r"[压壓抑]脂|脂肪抑制|脂肪饱和|脂肪飽和|지방 ?(억제|소거|포화)",
)
"""Any mention of fat counts as fat suppression; fat images are excluded earlier, by `contrast_hint`."""
_WITHOUT_SUPPRESSION = _any_of(
    rf"\b(no|non|not|without|w/?o|ohne|sans|sin|senza|sem|bez|без)[ -]*({'|'.join(_FAT)})",
    rf"[无無不非]({_FAT[-1]})",
    rf"({_FAT[-1]}) ?(なし|无|無|안 ?함)",
    r"yağ bask\w*(siz|sız)",
)
_FAT_SUPPRESSED = _any_of(*_FAT, r"fat[ -]?(sat|sup)", r"\bspa?ir\b|\bwater\b|dixon.*\bw\b")

# The agent counts only after a word for "after" or "with": "contrast" alone may mean image contrast.
_AFTER = (
    r"(\b(post|with|w/|after|mit|nach|con|avec|apr[eè]s|com|ap[oó]s|dopo|tras|z|po|с|после) ?-?"
    r"|\+ ?)(de |m\. )?"
)
_AGENT = r"(contrast[eo]?|kontrast(mittel|em|u)?|km|gd|gad(o\w*)?|mdc|контраст(ом|а|ным|ного)?|ку)\b"
_CONTRAST_AGENT = _any_of(
    _AFTER + _AGENT,
    r"\+ ?c\b(?![ -]?spine)|\bc ?\+(?!\w)|(avec|apr[eè]s) injection|kontrastlı",
    r"(?<![平未非髓髄管])(增强|增強|造影)(?!前|なし)|(?<![비수])조영(?! ?전)",
)


def description_text(series: SeriesHeader) -> str:
    """Return the normalised series description, or the protocol name if the description is empty.

    Some vendors put the name of the whole examination into the protocol name ("C-SPINE W STIR"), which does
    not describe the contrast of one series.
    """
    return normalise_text(series.description) or normalise_text(series.protocol)


def header_text(series: SeriesHeader) -> str:
    """Return the normalised series description and protocol name, separated by a bar."""
    return f"{normalise_text(series.description)} | {normalise_text(series.protocol)}"


def names_neck(text: str) -> bool:
    """Return True if a normalised text names the neck."""
    return bool(_NECK.search(text))


def other_region(text: str) -> str:
    """Return the region that a normalised text names, or "" if it names none or also names the neck."""
    if names_neck(text):
        return ""
    return next((name for name, pattern in _REGIONS if pattern.search(text)), "")


def _without_vertebrae(text: str) -> str:
    """Return the text without ranges of vertebrae, whose T1 and T2 are not weightings."""
    return _FROM_TO.sub(" ", text)


def contrast_hint(text: str) -> str:
    """Return the contrast other than T2 that a normalised text names, or ""."""
    text = _without_vertebrae(text)
    return next((name for name, pattern in _CONTRASTS if pattern.search(text)), "")


def says_t2(text: str) -> bool:
    """Return True if a normalised text names T2 weighting (not T2*, not the vertebra T2)."""
    return bool(_T2.search(_without_vertebrae(text)))


def says_fat_suppressed(text: str) -> bool:
    """Return True if a normalised text says that fat is suppressed, or names a Dixon water image."""
    return bool(_FAT_SUPPRESSED.search(_WITHOUT_SUPPRESSION.sub(" ", text)))


def says_contrast_agent(text: str) -> bool:
    """Return True if a normalised text says that contrast agent was given."""
    return bool(_CONTRAST_AGENT.search(text))
