"""What the words of a header are taken for, in the languages that technologists write them in."""

from __future__ import annotations

import pytest

from stenosis_trt.engine.series_words import (
    contrast_hint,
    names_neck,
    other_region,
    plain,
    says_fat_suppressed,
    says_t2,
)

NECK = (
    "C-Spine T2 sag, CSP SAG T2, HWS T2 sag, rachis cervical, columna cervical, cuello, colonna cervicale, "
    "rachide cervicale, coluna cervical, pescoço, ШОП Т2, шейный отдел, Шея, C-szyjny, kręgosłup szyjny, "
    "Servikal T2, SERVİKAL, boyun, 경추 T2, 경부, 颈椎 T2, 頸椎, 頚椎 T2矢状断"
)
OTHERS = {
    "lumbar": (
        "L-Spine, LSSP, LWS sag, rachis lombaire, columna lumbar, colonna lombare, coluna lombar, ПОП Т2, "
        "ПКОП, поясничный отдел, lędźwiowy, LĘDŹWIOWY, Lomber vertebra, 요추, 腰椎, 허리"
    ),
    "thoracic": (
        "T-Spine, BWS, rachis thoracique, columna dorsal, torácica, colonna toracica, ГОП, грудной отдел, "
        "piersiowy, torakal, 흉추, 胸椎"
    ),
    "brain": (
        "brain, Schädel, Kopf, crâne, cerveau, cervelet, cerebro, cabeza, cabeça, encefalo, cervello, testa, "
        "головной мозг, mózg, głowa, beyin, KRANİAL, 뇌, 头颅, 頭部, 脳"
    ),
    "pelvis": "cervix uteri, pelvis, крестцово-подвздошные, miednica, 骨盆, 골반",
}


@pytest.mark.parametrize("text", NECK.split(", "))
def test_a_word_for_the_neck_names_it_in_each_language(text: str) -> None:
    assert names_neck(plain(text))
    assert other_region(plain(text)) == ""


@pytest.mark.parametrize(
    ("region", "text"), [(region, text) for region, texts in OTHERS.items() for text in texts.split(", ")]
)
def test_a_word_for_another_region_names_that_region(region: str, text: str) -> None:
    assert not names_neck(plain(text))
    assert other_region(plain(text)) == region


@pytest.mark.parametrize("text", ["спинной мозг, шейный отдел", "rachis cervical et lombaire", "颈椎+腰椎"])
def test_the_neck_beside_another_region_counts_as_the_neck(text: str) -> None:
    assert other_region(plain(text)) == ""


@pytest.mark.parametrize(
    "text",
    [
        "C2-C7 T2 SAG",
        "C2-C7_T2_SAG",
        "C-SPINE C1-T2 T2 SAG",
        "SAG T2 C3-T1",
        "T2 C2/T2 sag",
        "T2_TSE_SAG_C2-T2",
        "C2 bis T1 T2 sag",
        "C2 to C7 T2",
        "С2-С7 Т2 сагиттальный",  # every letter Cyrillic
        "ШОП Т2-ВИ",
        "T2-3mm",
        "t2 3D space",
    ],
)
def test_t2_beside_vertebrae_is_the_weighting(text: str) -> None:
    assert says_t2(plain(text))
    assert contrast_hint(plain(text)) == ""


@pytest.mark.parametrize("text", ["C2-T2 SAG", "C7 T2 SAG", "C3/T2", "С2-Т2", "T2* sag", "Т2* сагиттальный"])
def test_a_vertebra_and_t2_star_are_not_the_weighting(text: str) -> None:
    assert not says_t2(plain(text))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("C7/T1 T1 SAG", "T1"),
        ("Т1 сагиттальный", "T1"),
        ("SAG C7/T1", ""),
        ("Übersicht", "a localizer"),
        ("Lokalisator", "a localizer"),
        ("localizador", "a localizer"),
        ("repérage", "a localizer"),
        ("локалайзер", "a localizer"),
        ("定位像", "a localizer"),
        ("位置決め", "a localizer"),
        ("스카우트", "a localizer"),
        ("диффузия", "diffusion"),
        ("弥散", "diffusion"),
        ("difusión", "diffusion"),
        ("миелография", "a myelogram"),
        ("mielografía", "a myelogram"),
        ("Protonendichte", "proton density"),
    ],
)
def test_a_contrast_is_recognised_in_each_language(text: str, hint: str) -> None:
    assert contrast_hint(plain(text)) == hint


@pytest.mark.parametrize(
    "text",
    [
        "T2 fettgesättigt",
        "T2 Fettsättigung",
        "T2 sat graisse",
        "T2 supresión grasa",
        "T2 soppressione del grasso",
        "T2 supressão de gordura",
        "Т2 с жироподавлением",
        "Т2 ЖП",
        "T2 tłumienie tłuszczu",
        "T2 yağ baskılı",
        "T2 压脂",
        "T2 脂肪抑制",
        "T2 지방억제",
    ],
)
def test_suppressed_fat_is_recognised_in_each_language(text: str) -> None:
    assert says_fat_suppressed(plain(text))


def test_letters_that_unicode_does_not_decompose_are_written_plainly() -> None:
    assert plain("ŁĘDŹ_İNTRA ıspanak Größe 경추") == "ledz intra ispanak grosse 경추"
