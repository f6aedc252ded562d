"""Keywords in descriptions of many languages: region, weighting, fat suppression, agent, localizer."""

from __future__ import annotations

import unicodedata
from itertools import product

import pytest

from stenosis_trt.engine.selection.keywords import (
    contrast_hint,
    names_neck,
    normalise_text,
    other_region,
    says_contrast_agent,
    says_fat_suppressed,
    says_t2,
)

NECK = (
    "C-Spine T2 sag",
    "CSPINE",
    "t2_tse_sag_HWS",
    "Halswirbelsäule",
    "T2 sag HWK 2-7",
    "rachis cervical",
    "colonne cervicale",
    "columna cervical",
    "RM cuello",
    "rachide cervicale",
    "collo",
    "coluna cervical",
    "Pescoço",
    "kręgosłup szyjny",
    "KRĘGOSŁUP SZYJNY",
    "C-szyjny T2 sag",
    "odc. szyjny",
    "шейный отдел позвоночника",
    "ШЕЙНЫЙ ОТДЕЛ",
    "ШОП T2 саг",
    "MR шеи",
    "servikal vertebra",
    "SERVİKAL",
    "servıkal",
    "Boyun MR",
    "颈椎 T2 矢状",
    "頸椎",
    "頚椎 T2 SAG",
    "경추 T2 SAG",
)
OTHERS = {
    "lumbar": (
        "L-Spine",
        "LWS sag",
        "Lendenwirbelsäule",
        "rachis lombaire",
        "columna lumbar",
        "rachide lombare",
        "coluna lombar",
        "kręgosłup lędźwiowy",
        "Kręgosłup L-S",
        "KRĘG. LS",
        "поясничный отдел",
        "ПОП T2",
        "ПКОП",
        "Lomber",
        "LOMBER VERTEBRA",
        "腰椎",
        "요추",
    ),
    "thoracic": (
        "T-Spine",
        "BWS",
        "Brustwirbelsäule",
        "rachis dorsal",
        "columna torácica",
        "columna dorsal",
        "rachide toracica",
        "coluna torácica",
        "kręgosłup piersiowy",
        "грудной отдел",
        "ГОП",
        "torakal",
        "胸椎",
        "흉추",
    ),
    "brain": (
        "Head",
        "Kopf",
        "Schädel",
        "Gehirn",
        "Cerveau",
        "tête",
        "cráneo",
        "encéfalo",
        "cabeza",
        "cervello",
        "cranio",
        "cabeça",
        "mózg",
        "głowa",
        "головной мозг",
        "beyin",
        "kafa",
        "脑",
        "腦",
        "脳",
        "頭部",
        "头颅",
        "뇌 MRI",
        "두부",
    ),
}
# Words that hold the word for something else, or mean two things.
NEITHER = (
    "спинной мозг",
    "脑脊液",
    "뇌척수액",
    "발목",
    "sag t2",
    "wirbelsäule",
    "rachis",
    "позвоночник",
    "척추",
    "脊柱",
)
NOT_THE_NECK = (
    "szyjka macicy",
    "шейка матки",
    "cervix uteri",
    "宫颈",
    "子宮頸部",
    "cuello uterino",
    "collo femore",
    "股骨颈",
)


@pytest.mark.parametrize("text", NECK)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_the_neck_is_recognised_in_the_languages_that_are_read(text: str, form: str) -> None:
    written = normalise_text(unicodedata.normalize(form, text))
    assert names_neck(written)
    assert other_region(written) == ""


@pytest.mark.parametrize(
    ("region", "text"), [(name, text) for name, texts in OTHERS.items() for text in texts]
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_other_regions_are_recognised_and_are_not_the_neck(region: str, text: str, form: str) -> None:
    written = normalise_text(unicodedata.normalize(form, text))
    assert not names_neck(written)
    assert other_region(written) == region


@pytest.mark.parametrize("text", NEITHER)
def test_a_word_that_means_something_else_names_no_region(text: str) -> None:
    assert not names_neck(normalise_text(text))
    assert other_region(normalise_text(text)) == ""


@pytest.mark.parametrize("text", NOT_THE_NECK)
def test_the_neck_of_womb_and_femur_is_not_the_neck(text: str) -> None:
    assert not names_neck(normalise_text(text))


@pytest.mark.parametrize(
    ("before", "span", "after"),
    list(
        product(
            ("{} {w} sag", "{w} {} sag", "sag {w} {}", "sag {} {w} tse", "C-SPINE {} {w} SAG", "{}_{w}_SAG"),
            (
                "C2-C7",
                "C1-T2",
                "C3-T1",
                "C7/T1",
                "C2/T2",
                "C2-7",
                "C3/4",
                "C2 - Th2",
                "C2 bis Th1",
                "C2-D2",
                "С2-С7",
            ),
            ("T2", "T1"),
        )
    ),
)
def test_a_weighting_beside_vertebrae_from_and_to_is_the_weighting(
    before: str, span: str, after: str
) -> None:
    text = normalise_text(before.format(span, w=after))
    assert says_t2(text) == (after == "T2")
    assert contrast_hint(text) == ("T1" if after == "T1" else "")


@pytest.mark.parametrize(
    "text",
    [
        "C2-C7 T2 SAG",
        "C7 T1 T2 SAG",
        "C2 C7 T2 SAG",
        "C1-C2-C3 T2",
        "Т2 саг",
        "T2-C2",
        "T2w sag C7-T1",
        "t2ВИ",
    ],
)
def test_t2_is_recognised(text: str) -> None:
    assert says_t2(normalise_text(text))
    assert contrast_hint(normalise_text(text)) == ""


@pytest.mark.parametrize(
    "text", ["C7-T2", "C2/T2 sag", "C2-T2 T1 SAG", "T1-T2", "T12", "SAG C5-T2", "T2* sag", "C1 T2"]
)
def test_a_vertebra_is_not_t2(text: str) -> None:
    assert not says_t2(normalise_text(text))


@pytest.mark.parametrize("text", ["C7-T1 sag", "C7/T1", "C2-T1 T2", "C7 T1 sag", "C2 - Th1", "T12"])
def test_a_vertebra_is_not_t1(text: str) -> None:
    assert contrast_hint(normalise_text(text)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "Localizer",
        "Lokalizer",
        "Übersicht",
        "localizador",
        "localizzatore",
        "Repérage",
        "локалайзер",
        "локализатор",
        "Lokalizator",
        "定位像",
        "位置決め",
    ],
)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_localizers_are_recognised(text: str, form: str) -> None:
    assert contrast_hint(normalise_text(unicodedata.normalize(form, text))) == "a localizer"


@pytest.mark.parametrize(
    "text",
    [
        "T2 FS sag",
        "t2 fatsat",
        "T2 fettgesättigt",
        "T2 Fettunterdrückung",
        "T2 saturation de graisse",
        "T2 saturación grasa",
        "T2 supresión de grasa",
        "T2 soppressione del grasso",
        "T2 saturação de gordura",
        "T2 saturacja tłuszczu",
        "T2 с жироподавлением",
        "T2 с подавлением сигнала от жира",
        "T2 yağ baskılı",
        "T2 压脂",
        "T2 脂肪抑制",
        "T2 지방억제",
    ],
)
def test_suppressed_fat_is_recognised(text: str) -> None:
    assert says_fat_suppressed(normalise_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "T2 ohne FS",
        "T2 sans saturation de graisse",
        "T2 без жироподавления",
        "T2 无压脂",
        "脂肪抑制なし",
        "T2 sag",
    ],
)
def test_fat_that_is_not_suppressed_is_not_taken_for_suppressed(text: str) -> None:
    assert not says_fat_suppressed(normalise_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "T2 sag post contrast",
        "T2 sag + C",
        "T2 C+",
        "T2 sag nach KM",
        "T2 +KM",
        "T2 post Gd",
        "T2 con contraste",
        "T2 avec injection",
        "T2 con mdc",
        "T2 z kontrastem",
        "T2 с контрастом",
        "T2 kontrastlı",
        "T2 增强",
        "T2 造影",
        "T2 조영증강",
    ],
)
def test_contrast_agent_is_recognised(text: str) -> None:
    assert says_contrast_agent(normalise_text(text))


@pytest.mark.parametrize(
    "text",
    [
        "T2 without contrast",
        "T2 sag ohne KM",
        "T2 vor KM",
        "pre contrast",
        "T2 sin contraste",
        "T2 senza mdc",
        "T2 bez kontrastu",
        "T2 без контраста",
        "T2 kontrastsız",
        "T2 造影前",
        "T2 조영 전",
        "T2 비조영",
        "T2 high contrast",
        "C2+C3",
        "t2 + c-spine",
        "KM sag",
    ],
)
def test_no_contrast_agent_is_read_from_words_that_deny_it_or_mean_something_else(text: str) -> None:
    assert not says_contrast_agent(normalise_text(text))
