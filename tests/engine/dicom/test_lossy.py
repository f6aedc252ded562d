"""Lossy compression and High-Throughput JPEG 2000: decoded, flagged, or rejected by name."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import gdcm
import numpy as np
import numpy.typing as npt
import pytest
from dicom_factory import compressed, dataset, write
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from stenosis_trt.engine.dicom.limits import ReadLimits
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.dicom.transfer_syntaxes import is_lossy
from stenosis_trt.engine.records import Problem
from stenosis_trt.engine.selection.select import select_series

# 16 × 24 pixels of the plane `_plane`, by libjpeg-turbo (12 and 8 bits) and OpenJPH.
_JPEG12 = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k"
    "(Yi3<(Mf3je_X3k(1d02l!Q5di<h02TlN0RaF200000000000000C3l9Ip02>eh0R#g800000000000000B04Fy^RAF-e+5iXv0RR9$"
    "0F3xJNQ)3YST;QEG5{PTMTj3P8y<F<01gr&#1EDYk2_iS@Nkh9AbhZFdD>(EI7o{SK3Fz9?J@uyBt?iHEE^tnzyH|"
)
_JPEG8 = base64.b85decode(
    "|JeWF01!$>Nk#wx0RR9200961|JwjV00IF40RaI50RaI50s;a81OoyB0s;jD1Oo&H1qKEN1qKEN2MGuU2MGrT1_%oX2?`1d3JL}Y3k"
    "(Yi3<(Mf3je?W3kU!Z02l!Q5di<h03QGV0R;g80RaI400000000000RjUA1qKHQ2?`7U!~nGr00IF60|EpC1qB2I0004f0RjU61Q7)i"
    "Au&M)6H#FYB5@QlfsvsIBSNvk6;jdgBr{@if(Z&17Z@2DB_<~*DJnEIHa9pqIzvQ7Mn_0VN>fx-R##YAT4Q8oW@l(=YIAgTc6WGrdV"
    "_?8hKGoWijtF*m6n&7nVO=bq@|{(sHv*5v$VCgx45~w!o$SH#>dFX%F@%+)z;V8+1laa<K*S$=jiF`@$&QZ_4fDp`TGCb00;pA002J"
    "#@qdB85kJ)a{{YjyeUtDv;wSo_-}-m2vOWg<ME?L&`~Lt=_5AyM4fu)vr}zGy>+Fw#zY#yw{{H~ey?vALH{vJypWpg-um9N"
)
_HTJ2K = base64.b85decode(
    "|4;u>04YEK0000O0000G00000000000000O0000G0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kd"
    "Tm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000nE(O*lfVEb@$Ur(bO68r698iU0|#^fzyK1!026@m0Ect{M?B&"
    "HqBH=&029Cf6+n(V{(=j103(hV@c<BjcUAzv02MF*1$e-~z`)vZf^`558yXrK8vfuI_A!C%xB$QaE8qYYz(%9dXfzs)^ZI&vaRPV%"
    "_xrx@`@Zk{zW)#b2p;`}Aba)@f$YBk|Je"
)
_HTJ2K_SIGNED = base64.b85decode(
    "|4;u>04YEK0000O0000G00000000000000O0000G000000000000EBy0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kd"
    "Tm&kdTmwh=~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00000m;eF)lfVEa>;Q*!0Kfnf0Al?E2Xp|y0206e6M*pmhjai(JmLV"
    "NGyuQ=6Tko!K#n{9f(vv2BaRsH01$w8Rsg^N6)*q=c)-BGz}j(wbpQ<;8X6iJ{@@t)F@fy30Kfn%-~blDMx)VaG#ZWb`g(eC0(b!T`"
    "@Zk{zVG|K{}2HP9{q$Md-f24?7sm2*#"
)


def _plane() -> npt.NDArray[np.uint16]:
    y, x = np.mgrid[0:16, 0:24]
    return np.asarray((1500 + 100 * x - 60 * y).clip(0, 4095), np.uint16)


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _file(path: Path, codestream: bytes, syntax: str, bits: int = 12, **tags: object) -> Path:
    content = dataset(0, Rows=16, Columns=24, BitsStored=bits, HighBit=bits - 1, **tags)
    content.BitsAllocated = 8 if bits <= 8 else 16
    content.PixelData = encapsulate([codestream])
    content["PixelData"].VR = "OB"
    content["PixelData"].is_undefined_length = True
    return write(path, content, syntax)


def _decoded(reader: DicomReader, path: Path) -> npt.NDArray[np.int64]:
    (study,) = reader.scan([path]).studies
    slices, problems = reader.load(study.series[0].frames)
    assert problems == ()
    return slices[0].stored.astype(np.int64)


def _refusal(reader: DicomReader, path: Path) -> Problem:
    scan = reader.scan([path])
    if scan.problems:
        return scan.problems[0]
    slices, problems = reader.load(scan.studies[0].series[0].frames)
    assert slices == ()
    return problems[0]


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, JPEGBaseline8Bit])
def test_jpeg_of_12_bits_is_read_within_its_loss(syntax: str, reader: DicomReader, tmp_path: Path) -> None:
    """Baseline has 8 bits; some writers name it where they mean Extended."""
    found = _decoded(reader, _file(tmp_path / "a.dcm", _JPEG12, syntax))
    assert np.abs(found - _plane()).max() <= 1


@pytest.mark.parametrize("syntax", [JPEGExtended12Bit, JPEGBaseline8Bit])
def test_jpeg_of_8_bits_is_read_within_its_loss(syntax: str, reader: DicomReader, tmp_path: Path) -> None:
    found = _decoded(reader, _file(tmp_path / "a.dcm", _JPEG8, syntax, bits=8))
    assert np.abs(found - (_plane() >> 4)).max() <= 1


def test_loss_beyond_the_stored_bits_is_clipped_and_does_not_wrap(
    reader: DicomReader, tmp_path: Path
) -> None:
    found = _decoded(reader, _file(tmp_path / "a.dcm", _JPEG12, JPEGExtended12Bit, bits=11))
    assert np.abs(found - _plane().clip(None, 2047)).max() <= 1


def test_jpeg_with_other_bits_than_the_header_is_refused(reader: DicomReader, tmp_path: Path) -> None:
    problem = _refusal(reader, _file(tmp_path / "a.dcm", _JPEG8, JPEGBaseline8Bit, bits=12))
    assert problem.reason == "The compressed image has 8 bits a pixel, its header says 12."


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_jpeg_that_lost_its_end_is_refused(kept: float, reader: DicomReader, tmp_path: Path) -> None:
    cut = _JPEG12[: int(len(_JPEG12) * kept) // 2 * 2]
    problem = _refusal(reader, _file(tmp_path / "a.dcm", cut, JPEGExtended12Bit))
    assert problem.reason == (
        "The compressed pixels cannot be decoded: the data of JPEG Extended (Process 2 and 4) are broken."
    )


def test_an_unsupported_jpeg_process_is_named(reader: DicomReader, tmp_path: Path) -> None:
    arithmetic = _JPEG12.replace(b"\xff\xc1", b"\xff\xc9", 1)
    problem = _refusal(reader, _file(tmp_path / "a.dcm", arithmetic, JPEGExtended12Bit))
    assert "arithmetic coding, which no decoder supports" in problem.reason
    assert "explicit VR little endian" in problem.advice


def _by_gdcm(path: Path, target: Path) -> Path:
    """The file compressed as JPEG Extended by GDCM, which writes 16 bits a sample."""
    source = gdcm.ImageReader()
    source.SetFileName(str(path))
    assert source.Read()
    codec = gdcm.JPEGCodec()
    codec.SetLossless(False)
    codec.SetQuality(95)
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    change.SetUserCodec(codec)
    change.SetInput(source.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFile(source.GetFile())
    writer.SetImage(change.GetOutput())
    writer.SetFileName(str(target))
    assert writer.Write()
    return target


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [10, 12, 15])
def test_jpeg_of_16_bits_as_gdcm_writes_it_has_no_wrapped_values(
    bits: int, signed: int, reader: DicomReader, tmp_path: Path
) -> None:
    """What is dark comes out a little below 0, which GDCM itself reads as the brightest values."""
    values = np.random.default_rng(0).integers(0, 400, (256, 256)).astype(np.uint16)
    values[:128] = 0
    values[:, 128:] = 0
    content = dataset(0, BitsStored=bits, HighBit=bits - 1, PixelData=values.tobytes())
    content.PixelRepresentation = signed
    path = _by_gdcm(write(tmp_path / "plain.dcm", content), tmp_path / "a.dcm")
    assert np.abs(_decoded(reader, path) - values).max() < 40


def test_jpeg_with_loss_and_16_stored_bits_is_refused(reader: DicomReader, tmp_path: Path) -> None:
    """What is below 0 and what is near 65535 could not be told apart."""
    content = dataset(0, BitsStored=16, HighBit=15)
    path = _by_gdcm(write(tmp_path / "plain.dcm", content), tmp_path / "a.dcm")
    assert "16 bits, which JPEG does not define" in _refusal(reader, path).reason


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_high_throughput_jpeg_2000_gives_back_the_values(
    syntax: str, reader: DicomReader, tmp_path: Path
) -> None:
    found = _decoded(reader, _file(tmp_path / "a.dcm", _HTJ2K, syntax, bits=16))
    assert np.array_equal(found, _plane())
    path = _file(tmp_path / "b.dcm", _HTJ2K_SIGNED, syntax, bits=16, PixelRepresentation=1)
    assert np.array_equal(_decoded(reader, path), _plane().astype(int) - 2000)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
def test_high_throughput_jpeg_2000_that_lost_its_end_is_refused(
    kept: float, reader: DicomReader, tmp_path: Path
) -> None:
    cut = _HTJ2K[: int(len(_HTJ2K) * kept) // 2 * 2]
    assert "broken" in _refusal(reader, _file(tmp_path / "a.dcm", cut, HTJ2KLossless, bits=16)).reason


def test_high_throughput_jpeg_2000_that_lies_about_its_size_is_refused(
    reader: DicomReader, tmp_path: Path
) -> None:
    lying = _HTJ2K[:8] + b"\0\0\xff\xff\0\0\xff\xff" + _HTJ2K[16:]
    assert "its header says" in _refusal(reader, _file(tmp_path / "a.dcm", lying, HTJ2K, bits=16)).reason


def test_what_cannot_be_decoded_is_refused_by_the_name_of_its_transfer_syntax(
    reader: DicomReader, tmp_path: Path
) -> None:
    path = _file(tmp_path / "a.dcm", _HTJ2K, UID("1.2.840.10008.1.2.4.92"), bits=16)
    problem = _refusal(reader, path)
    assert "not supported: JPEG 2000 Part 2 Multi-component" in problem.reason
    assert problem.advice == "Export it as explicit VR little endian."


def test_memory_is_named_only_where_a_frame_is_near_the_limit(tmp_path: Path) -> None:
    path = _file(tmp_path / "a.dcm", _JPEG12[:100], JPEGExtended12Bit)
    with DicomReader(ReadLimits(decode_memory_bytes=4000 << 10)) as reader:
        assert "limit" not in _refusal(reader, path).reason
    large = dataset(0, Rows=4096, Columns=4096)
    large.PixelData = encapsulate([b"\xff\xd8" + b"\x55" * 100])
    large["PixelData"].is_undefined_length = True
    with DicomReader(ReadLimits(decode_memory_bytes=100 << 20)) as reader:
        problem = _refusal(reader, write(tmp_path / "b.dcm", large, JPEG2000Lossless))
    assert "need more than the limit" in problem.reason


@pytest.mark.parametrize(
    ("syntax", "stated", "lossy"),
    [
        (JPEGBaseline8Bit, "", True),
        (JPEGExtended12Bit, "00", True),
        (JPEG2000, "", True),
        (JPEG2000, "00", False),
        (JPEGLSNearLossless, "01", True),
        (HTJ2K, "00", False),
        (JPEG2000Lossless, "", False),
        (JPEGLSLossless, "01", True),
        (RLELossless, "", False),
    ],
)
def test_loss_is_determined_by_transfer_syntax_and_header(syntax: str, stated: str, lossy: bool) -> None:
    assert is_lossy(syntax, stated) is lossy


def test_a_study_with_an_image_compressed_with_loss_is_flagged(reader: DicomReader, tmp_path: Path) -> None:
    def warnings(lossy: set[int], syntax: str | None = None) -> tuple[str, ...]:
        folder = tmp_path / f"{sorted(lossy)}{syntax}"
        for number in range(9):
            content = dataset(number)
            if number in lossy:
                content.LossyImageCompression = "01"
            write(folder / f"{number}", content)
        return select_series(reader.scan([folder]).studies[0]).warnings

    assert "lossy_compression" not in warnings(set())
    assert "lossy_compression" in warnings({3})


def test_near_lossless_jpeg_ls_is_read(reader: DicomReader, tmp_path: Path) -> None:
    content: Dataset = dataset(0)
    plain = np.frombuffer(content.PixelData, np.uint16).reshape(256, 256)
    packed = compressed_near(content)
    found = _decoded(reader, write(tmp_path / "a.dcm", packed, JPEGLSNearLossless))
    assert 0 < np.abs(found - plain).max() <= 3


def compressed_near(content: Dataset) -> Dataset:
    content.file_meta = compressed(dataset(0), JPEGLSLossless).file_meta
    content.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    content.compress(JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    return content
