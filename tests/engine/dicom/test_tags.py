"""The table of data elements agrees with the data dictionary."""

from __future__ import annotations

import pytest
from pydicom.datadict import dictionary_VR, tag_for_keyword

from stenosis_trt.engine.dicom import transfer_syntaxes, uids
from stenosis_trt.engine.dicom.tags import TAGS, tag_table


@pytest.mark.parametrize("keyword", TAGS)
def test_tag_and_value_representation_are_those_of_the_data_dictionary(keyword: str) -> None:
    tag, vr = TAGS[keyword]
    assert tag == tag_for_keyword(keyword)
    assert vr.decode() == dictionary_VR(tag)


def test_a_keyword_outside_the_table_raises() -> None:
    with pytest.raises(ValueError, match="NoSuchThing"):
        tag_table(["NoSuchThing"])


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        (transfer_syntaxes.IMPLICIT_LITTLE_ENDIAN, "Implicit VR Little Endian"),
        (transfer_syntaxes.EXPLICIT_LITTLE_ENDIAN, "Explicit VR Little Endian"),
        (transfer_syntaxes.DEFLATED_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian"),
        (transfer_syntaxes.EXPLICIT_BIG_ENDIAN, "Explicit VR Big Endian"),
        (transfer_syntaxes.RLE_LOSSLESS, "RLE Lossless"),
        (transfer_syntaxes.JPEG_BASELINE, "JPEG Baseline (Process 1)"),
        (transfer_syntaxes.JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Lossy (Near-Lossless) Image Compression"),
        (transfer_syntaxes.HTJ2K, "High-Throughput JPEG 2000 Image Compression"),
    ],
)
def test_transfer_syntaxes_have_their_names(uid: str, name: str) -> None:
    assert transfer_syntaxes.syntax_name(uid) == name


@pytest.mark.parametrize("uid", sorted({*transfer_syntaxes.NATIVE, *transfer_syntaxes.DECODERS}))
def test_each_transfer_syntax_can_be_read(uid: str) -> None:
    from pydicom.uid import UID

    assert transfer_syntaxes.is_readable(uid)
    assert transfer_syntaxes.is_compressed(uid) == UID(uid).is_encapsulated


def test_the_sop_class_of_a_dicomdir_is_that_of_the_standard() -> None:
    assert uids.class_keyword(uids.DICOMDIR_CLASS) == "MediaStorageDirectoryStorage"
