"""What the words of a header hint at: the body region, the contrast, fat suppression.

Descriptions are typed by people, in many languages and by many habits. Nothing here decides alone: see
`series_role` for what weighs how much.
"""

from __future__ import annotations

import re
import unicodedata

from stenosis_trt.engine.records import SeriesHeader


def _fold(text: str) -> str:
    """Lower case, without accents, and with the letters that Unicode does not decompose written plainly.

    Hangul syllables come apart in a decomposition and are joined again. What loses its marks (й, が) loses
    them in the patterns below as well, which are folded too.
    """
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    bare = "".join(c for c in decomposed if not unicodedata.combining(c))
    return unicodedata.normalize("NFC", bare).translate(_PLAIN_LETTERS)


_PLAIN_LETTERS = str.maketrans({"ł": "l", "ı": "i", "ø": "o", "đ": "d"})


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(map(_fold, alternatives)))


# What technologists write, a line a group of languages: English and German; French, Spanish, Italian and
# Portuguese; Russian; Polish and Turkish; Chinese, Japanese and Korean. ШОП, ГОП and ПОП are the usual
# abbreviations of the three regions in Russian, HWS, BWS and LWS in German. Words that also mean something
# else (French "cou", Turkish "bel") are left out.
_REGIONS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "lumbar",
        _pattern(
            r"lumb|\bl(s|ss)?[ -]?spine|\bl[ -]?sp\b|\blssp|\blws\b|lenden",
            r"lomb",
            r"пояснич|\bпк?оп\b|люмб",
            r"lędźw|\bl-?s\b",
            r"腰|요추|허리",
        ),
    ),
    (
        "thoracic",
        _pattern(
            r"thora|\btl?[ -]?spine|\bbws\b|brustwirbel",
            r"torac|\btorax|\bdors(al|ale|o)\b",
            r"грудн|\bгоп\b",
            r"piersiow|torak",
            r"胸椎|胸段|흉추",
        ),
    ),
    (
        "brain",
        _pattern(
            r"brain|\bhead|cereb|encephal|crani|schädel|\bkopf|\bhirn",
            r"\bcrâne|\btête\b|cerve(au|let|ll)|encefal|cráne|cabe[zç]a|\btesta\b",
            r"головн|голов[аы]",
            r"mózg|głow|beyin|kafa\b|kranial",
            r"脳|脑|腦|颅|顱|头|頭|뇌|두부",
        ),
    ),
    ("pelvis", _pattern(r"pelvi|sacr|prosta|coccy|uter|cervix", r"\bтаза\b|крестц|miednic|骨盆|골반")),
    (
        "trunk",
        _pattern(r"chest|breast|abdom|liver|kidney|renal|heart|cardia", r"брюшн|\bbatın\b|腹部|肝|복부"),
    ),
    (
        "limb",
        _pattern(
            r"knee|shoulder|\bhips?\b|wrist|elbow|ankle|\bfoot\b|\bhand\b|femur|tibia|humerus|\bknie|schulter",
            r"genou|épaule|hanche|rodilla|hombro|cadera|ginocchio|spalla|joelho|\bombro|quadril",
            r"колен|плеч|тазобедр|kolan|\bdiz\b|omuz|膝|肩|무릎|어깨",
        ),
    ),
)
_NECK = _pattern(
    # Not "cerveau", "cervelet" and "cervello", which are brains, nor "cervix".
    r"cerv(?!e[al]|ix)|zervi|\bct?[ -]?spine|\bc[ -]?sp\b|\bhws\b|neck|\bhals",
    r"cuello|\bcollo\b|pescoço",
    r"шейн|\bшоп\b|\bше[яию]\b",
    r"szyjn|\bszyi\b|servik|boyun",
    r"颈|頸|頚|경추|경부",
)

# Vertebrae from and to: "C2-C7", "C7/T1", "C3-7", "C2 to T1". Their "T1" and "T2" name no weighting.
_VERTEBRAE = _pattern(
    r"\b[cс]\d\s?[-–/~]\s?[cсtтdl]?\d{1,2}\b",
    r"\b[tdl]\d{1,2}\s?[-–/~]\s?[tdls]\d{1,2}\b",
    r"\b[cсtт]\d{1,2} (to|bis|a|al|do|до|по) [cсtтdl]?\d{1,2}\b",
)
# Behind a single one ("C7 T1") the two cannot be told apart: neither is read from it.
_NO_VERTEBRA = r"(?<![cсtт]\d[-/ ])"
_T = "[tт]"
"""Also the Cyrillic letter, which looks the same."""
# A fat image is one half of a split; "T2 FAT" alone is short for saturated fat.
_SPLIT = r"(dixon|\bideal\b|\bflex\b)"
_NOT_SUPPRESSED = r"(?![ -]?(sat|sup))"
_CONTRASTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a localizer",
        _pattern(
            r"locali[sz]er|\blocs?\b|scout|survey|\bpilot\b|3[ -]?pl(ane)?\b|lokalis|übersicht|topogram",
            r"localizador|locali[sz]zator|localisat|repérage",
            r"локалайзер|локализатор|топограмм|lokaliz|kılavuz",
            r"定位|位置決|스카우트|로컬라이저",
        ),
    ),
    ("STIR", _pattern(r"stir|tirm|\bir[ -]?fse|fse[ -]?ir\b")),
    ("FLAIR", _pattern(r"flair|dark[ -]?fluid")),
    (
        "diffusion",
        _pattern(
            r"\bdwi|\bdti|diffusion|\bdiff\b|\badc\b|\btrace\b|\bivim|\bep2d",
            r"difu[sz]|diffu[sz]|диффуз|dyfuz|拡散|弥散|彌散|扩散|擴散|확산",
        ),
    ),
    ("a myelogram", _pattern(r"myelogra|\bmyelo\b", r"mielogra|миелограф|miyelogra|水成像|ミエロ|척수조영")),
    (
        "a fat image",
        _pattern(rf"^fat:|{_SPLIT}.*\bf(at)?\b{_NOT_SUPPRESSED}|\bfat\b{_NOT_SUPPRESSED}.*{_SPLIT}"),
    ),
    ("an opposed-phase image", _pattern(r"\bopp(osed)?\b|out[ -]?(of[ -]?)?phase")),
    (
        "T2*",
        _pattern(rf"{_T}2 ?\*|{_T}2[ -]?star|\bmedic\b|\bmerge\b|\b[mb]?ffe\b|\bswi|\bhemo\b|\bgre\b"),
    ),
    ("T1", re.compile(_NO_VERTEBRA + rf"(?<![a-zа-я0-9])[se]?{_T}1(?!\d)")),
    ("proton density", _pattern(r"\bpdw?\b|proton|протон")),
)
_WITHOUT_SUPPRESSION = re.compile(
    r"\b(no|non|not|without|w/?o|ohne|sans|sin|senza)[ -]*(fs\b|fat\b([ -]?(sat|sup)\w*)?)"
)
_T2 = re.compile(_NO_VERTEBRA + rf"{_T}2(?!\d| ?\*|[ -]?star)")
_FAT_SUPPRESSED = _pattern(
    r"\bfs\b|\bfat\b|fat[ -]?(sat|sup)|\bspa?ir\b|\bwater\b|dixon.*\bw\b|fett[ -]?(ges|sat|sup|unter)",
    r"graisse|\bgrasa|\bgrasso|gordura",
    r"жироподав|подавлени\w* жир|\bжп\b|tłuszcz|yağ[ -]?bask",
    r"压脂|壓脂|抑脂|脂肪抑制|지방[ -]?억제",
)
"""Fat that is named at all is mostly named because it is dark; a fat image is told before."""


def plain(text: str) -> str:
    """Lower case, without accents, words parted by spaces instead of underscores."""
    return _fold(text).replace("_", " ").strip()


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
    rest = _VERTEBRAE.sub(" ", text)
    return next((name for name, pattern in _CONTRASTS if pattern.search(rest)), "")


def says_t2(text: str) -> bool:
    """Whether a plain text names T2 (not T2*, and not the vertebra)."""
    return bool(_T2.search(_VERTEBRAE.sub(" ", text)))


def says_fat_suppressed(text: str) -> bool:
    """Whether a plain text says that fat is dark: suppressed, or the water image of a Dixon split."""
    return bool(_FAT_SUPPRESSED.search(_WITHOUT_SUPPRESSION.sub(" ", text)))
