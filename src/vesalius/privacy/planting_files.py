"""The files of a plant: identifiers written into every place of a DICOM file where one can hide."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import ImplicitVRLittleEndian, generate_uid

from vesalius.privacy.planting import Key, Person, date_forms, people

# Carriers inside pydicom's own package, and whether pixels take text: "native", "lossless", "film" or "";
# "dated" shows a date already, which is hidden by right.
IMAGES = (
    ("CT_small.dcm", "native"), ("MR_small.dcm", "native"), ("MR_small_implicit.dcm", "native"),
    ("MR_small_bigendian.dcm", "native"), ("MR_small_RLE.dcm", ""), ("MR_small_jp2klossless.dcm", ""),
    ("MR_small_jpeg_ls_lossless.dcm", ""), ("693_J2KI.dcm", "lossless"), ("examples_overlay.dcm", "native"),
    ("examples_rgb_color.dcm", "native"), ("examples_palette.dcm", "dated"), ("examples_ybr_color.dcm", "film"),
)  # fmt: skip
OTHERS = ("reportsi.dcm", "test-SR.dcm", "rtplan.dcm", "waveform_ecg.dcm", "rtdose.dcm", "rtstruct.dcm")
_HARD_NEGATIVES = ("Wilson disease", "Prisma fit", "Hodgkin lymphoma", "FLAIR tra 3mm")
_NARROW = 100  # columns
_SAFE_CREATOR = "GEMS_ACQU_01"


def plant(folder: Path, seed: int, patients: int) -> Key:
    """Write the files of so many invented patients into a folder, and return the answers.

    Each patient has one image of every second carrier in turn, in a folder and a file called after them, and one
    object of another kind; images of one patient refer to each other.
    """
    key = Key()
    number = 1000 + seed % 1000 * 1000
    for index, person in enumerate(people(seed, patients)):
        home = folder / f"{person.family}_{person.identifier}"
        home.mkdir(parents=True)
        series = [IMAGES[(2 * index + step) % len(IMAGES)] for step in range(2)]
        before = ""
        for carrier, pixels in series:
            number += 1
            before = _one(home, number, carrier, pixels, person, key, before, seed)
    return key


def plant_others(folder: Path, seed: int, key: Key) -> None:
    """Reports, plans and waveforms, which hold text in other places; answers go into the same key."""
    for index, person in enumerate(people(seed + 1, len(OTHERS))):
        number = 900_000 + index
        home = folder / f"{person.family}_{person.identifier}"
        home.mkdir(parents=True)
        _one(home, number, OTHERS[index], "", person, key, "", seed)


def _one(
    home: Path, number: int, carrier: str, pixels: str, person: Person, key: Key, before: str, seed: int
) -> str:  # fmt: skip
    dataset = dcmread(str(get_testdata_file(carrier, download=False)), force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.decode()
    for _ in dataset.iterall():
        continue
    _identify(dataset, person, number, key, seed)
    _describe(dataset, person, number, key)
    _nest(dataset, person, number, key, before)
    _hide_in_corners(dataset, person, number, key)
    _report(dataset, person, number, key)
    if "PixelData" in dataset:
        _pixels(dataset, person, number, key, pixels)
        _comment_stream(dataset, person)
    target = home / f"{person.family}_{number}.dcm"
    dataset.save_as(target, enforce_file_format=True)
    with target.open("ab") as file:
        file.write(b"\xfc\xff\xfc\xff" + (b"OB\0\0" if not dataset.file_meta.TransferSyntaxUID.is_implicit_VR else b"")
                   + (64).to_bytes(4, "little") + f"{person.identifier} {person.mail}".encode().ljust(64, b"\0")
                   if dataset.file_meta.TransferSyntaxUID.is_little_endian else b"")  # fmt: skip
    key.originals[number] = target
    key.patients[number] = person.identifier
    words = {person.identifier, person.mail, person.phone, person.address, person.name.split("=")[0]}
    key.forbidden |= words | {word for word in (person.family, person.given) if word not in _AMBIGUOUS}
    return str(dataset.SOPInstanceUID)


_AMBIGUOUS = ("Wilson", "Parkinson", "Crohn")  # stand as eponyms in what must be kept


def _identify(ds: Any, person: Person, number: int, key: Key, seed: int) -> None:
    ds.SpecificCharacterSet = person.charset
    ds.PatientName, ds.PatientID = person.name, person.identifier
    ds.PatientBirthDate, ds.PatientSex = f"{person.birth:%Y%m%d}", "F"
    ds.PatientAge, ds.PatientWeight, ds.PatientSize = "093Y", "61.5", "1.66"
    ds.PatientAddress, ds.PatientTelephoneNumbers = person.address, person.phone
    ds.OtherPatientIDs, ds.OtherPatientNames = f"X{person.identifier}", f"{person.family}^{person.given}"
    ds.InstitutionName, ds.InstitutionAddress = person.hospital, f"{person.town}, campus"
    ds.ReferringPhysicianName = ds.OperatorsName = f"{person.doctor}^Ann"
    ds.StationName, ds.DeviceSerialNumber, ds.AccessionNumber = "KVZSTAT7", f"SN{number}77", f"ACC{number}55"
    ds.Manufacturer, ds.ManufacturerModelName = "Siemens Healthineers", "Prisma fit"
    ds.InstanceNumber = number
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(ds, keyword, f"{person.visit:%Y%m%d}")
        key.add("date shifted", number, keyword, f"{person.visit:%Y%m%d}", "DA")
    ds.StudyTime, ds.AcquisitionDateTime = "101530", f"{person.visit:%Y%m%d}101530.25+0100"
    key.add("date shifted", number, "AcquisitionDateTime", ds.AcquisitionDateTime, "DT with its time of day")
    key.add("tag retained", number, "StudyTime", "101530", "time of day")
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
        kind = "" if keyword in ("SOPInstanceUID", "SeriesInstanceUID") else "study"
        owner = person.identifier if kind else str(number)
        setattr(ds, keyword, generate_uid(entropy_srcs=[str(seed), owner, keyword]))
        key.add("UID changed", number, keyword, str(getattr(ds, keyword)))
        key.add("UID consistent", number, keyword, str(getattr(ds, keyword)))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    for keyword, kept in (("PatientSex", "F"), ("PatientWeight", "61.5"), ("PatientSize", "1.66"),
                          ("ManufacturerModelName", "Prisma fit"), ("PatientAge", "090Y")):  # fmt: skip
        key.add("tag retained", number, keyword, kept)
    for keyword in ("Rows", "Columns", "BitsStored", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient",
                    "SliceThickness", "Modality", "EchoTime", "KVP"):  # fmt: skip
        if ds.get(keyword) not in (None, ""):
            key.add("tag retained", number, keyword, str(ds.get(keyword)))
    key.add("patient ID consistent", number, "PatientID", person.identifier)
    for keyword in ("StationName", "DeviceSerialNumber", "AccessionNumber", "InstitutionName", "OtherPatientIDs"):
        key.add("text removed", number, "", str(ds.get(keyword)), keyword)


def _describe(ds: Any, person: Person, number: int, key: Key) -> None:
    ds.SeriesDescription = f"{person.descriptor} {person.family}"[:60]
    ds.StudyDescription = f"{_HARD_NEGATIVES[number % len(_HARD_NEGATIVES)]} {person.identifier}"
    ds.ProtocolName = f"{person.descriptor} {person.hospital}"[:60]
    ds.ImageComments = person.sentence
    ds.PatientComments = f"call {person.phone} or {person.mail}; ref. Dr. {person.doctor}; lives {person.address}"
    ds.AdmittingDiagnosesDescription = _misspelt(person)
    key.add("text retained", number, "SeriesDescription", person.descriptor, "descriptor stays readable")
    key.add(
        "text retained", number, "StudyDescription", _HARD_NEGATIVES[number % len(_HARD_NEGATIVES)], "hard negative"
    )
    key.add("text retained", number, "ProtocolName", person.descriptor, "descriptor stays readable")
    key.add("text not null", number, "ImageComments", "")
    for word in (person.doctor, person.mail, person.phone, person.town):
        key.add("text removed", number, "", word, "in comments")
    key.add("text removed", number, "", person.identifier, "identifier")
    key.add("text removed", number, "", person.name.split("=")[0].split("^")[0] + "^", "name as in its element")
    if person.family not in _AMBIGUOUS:
        key.add("text removed", number, "", person.family, "family name")
        key.add("text removed", number, "AdmittingDiagnosesDescription", _misspelt(person).split()[1], "misspelt name")
    form = date_forms(person.sentence, person.visit)
    if form:
        key.add("date shifted", number, "ImageComments", f"{person.visit:%Y%m%d}|{form}", "date in text")
    for disease in ("Parkinson disease", "Morbus Wilson", "maladie de Crohn"):
        if disease in person.sentence:
            key.add("text retained", number, "ImageComments", disease, "hard negative")
    key.add("text removed", number, "", f"{person.birth:%d.%m.%Y}", "birth date in text")
    key.add("text removed", number, "", f"{person.birth:%Y%m%d}", "birth date")


def _misspelt(person: Person) -> str:
    name = person.family
    wrong = name[:3] + name[4] + name[3] + name[5:] if len(name) > 6 else name
    return f"pain {wrong} chest"


def _nest(ds: Any, person: Person, number: int, key: Key, before: str) -> None:
    inner = Dataset()
    inner.PatientID, inner.PatientName = person.identifier, person.name
    inner.TextValue = f"report on {person.plain}, {person.identifier}"
    inner.CodeMeaning = "kept meaning"
    deep = Dataset()
    deep.ContentSequence = Sequence([inner])
    reference = Dataset()
    reference.ReferencedSOPClassUID = ds.SOPClassUID
    reference.ReferencedSOPInstanceUID = before or ds.SOPInstanceUID
    reference.PurposeOfReferenceCodeSequence = Sequence([deep])
    ds.ReferencedImageSequence = Sequence([reference])
    where = "ReferencedImageSequence/ReferencedSOPInstanceUID"
    key.add("UID changed", number, where, str(reference.ReferencedSOPInstanceUID))
    key.add("UID consistent", number, where, str(reference.ReferencedSOPInstanceUID), "reference to another file")


def _report(ds: Any, person: Person, number: int, key: Key) -> None:
    """Content items of each kind that can name somebody in reports, labels and structures in plans and outlines."""
    if "ContentSequence" in ds:
        values: tuple[tuple[str, dict[str, Any]], ...] = (
            ("PNAME", {"PersonName": person.name}),
            ("TEXT", {"TextValue": f"{person.plain}, {person.identifier}: no change"}),
            ("DATE", {"Date": f"{person.visit:%Y%m%d}"}),
            ("UIDREF", {"UID": str(ds.SOPInstanceUID)}),
        )
        for kind, value in values:
            item = Dataset()
            item.RelationshipType, item.ValueType = "CONTAINS", kind
            for keyword, content in value.items():
                setattr(item, keyword, content)
            ds.ContentSequence.insert(0, item)
        key.add("UID consistent", number, "ContentSequence/UID", str(ds.SOPInstanceUID), "UIDREF")
        key.add("UID changed", number, "ContentSequence/UID", str(ds.SOPInstanceUID), "UIDREF")
    for sequence, keyword in (("StructureSetROISequence", "ROIName"), ("BeamSequence", "BeamName"),
                              ("RTROIObservationsSequence", "ROIObservationLabel")):  # fmt: skip
        for item in list(ds.get(sequence) or ())[:1]:
            setattr(item, keyword, f"GTV {person.family}"[: 16 if keyword == "ROIObservationLabel" else 64])
    for keyword in ("StructureSetLabel", "RTPlanLabel"):
        if keyword in ds:
            setattr(ds, keyword, person.identifier[:16])


def _hide_in_corners(ds: Any, person: Person, number: int, key: Key) -> None:
    block = ds.private_block(0x0099, "KVZ UNKNOWN MAKER", create=True)
    block.add_new(1, "LO", person.plain)
    block.add_new(2, "OB", person.identifier.encode() + b"\0" * (len(person.identifier) % 2))
    safe = ds.private_block(0x0019, _SAFE_CREATOR, create=True)
    safe.add_new(0x23, "DS", "4.5")
    safe.add_new(0x9E, "LO", f"EFGRE {person.family}")
    element = f"0019{int(safe.get_tag(0x23)) & 0xFFFF:04x}"
    key.add("tag retained", number, element, "4.5", "safe private attribute")
    ds.add_new(0x00082111, "UN", f"note {person.identifier}".encode().ljust(40)) if number % 3 == 0 else None
    ds.add_new(0x50003000, "OW", person.identifier.encode().ljust(16, b"\0"))
    ds.add_new(0x00189999, "LO", person.plain[:60])
    ds.ContainerIdentifier = person.identifier
    ds.preamble = person.identifier.encode().ljust(128, b"\0")[:128]
    ds.file_meta.SourceApplicationEntityTitle = "KVZSTAT7"
    ds.file_meta.PrivateInformationCreatorUID = "1.2.3.4.5"
    ds.file_meta.PrivateInformation = person.identifier.encode().ljust(32, b"\0")


def _pixels(ds: Any, person: Person, number: int, key: Key, kind: str) -> None:
    if kind == "dated":
        return
    if not kind or max(map(ord, person.family)) > 0xFF:  # the font has the letters of Latin-1
        key.add("pixels retained", number, "", "", "nothing was to be hidden")
        return
    array = ds.pixel_array
    frames = array if kind == "film" else array[None]
    label = person.family.upper()
    if frames.shape[2] < _NARROW:  # a name that is cut off is told by fewer letters: plain ones
        label = "".join(letter for letter in unicodedata.normalize("NFKD", label) if not unicodedata.combining(letter))
    picture = _letters(label, frames.shape[1:3])
    rows, columns = np.nonzero(picture)
    bright = frames.max()
    written = frames.copy()
    written[:, picture] = bright
    box = (int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    _put(ds, written if kind == "film" else written[0])
    for frame in range(len(written)) if len(written) < 3 else (0, len(written) // 2, len(written) - 1):
        key.add("pixels hidden", number, str(frame), label, "name in pixels", box)
    key.add("pixels retained", number, "", "", "all but the name", box)


def _letters(word: str, shape: tuple[int, ...]) -> Any:
    from PIL import Image, ImageDraw, ImageFont

    size = 10 if shape[0] < 200 else 18
    page = Image.new("L", (shape[1], shape[0]))
    ImageDraw.Draw(page).text((3, 4), word, fill=255, font=ImageFont.load_default(size))
    return np.asarray(page) > 127


def _put(ds: Any, array: Any) -> None:
    """Native pixels again, with byte order and colour as pydicom gave them."""
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

    packed = ds.file_meta.TransferSyntaxUID.is_compressed
    big = not ds.file_meta.TransferSyntaxUID.is_little_endian
    array = array.astype(array.dtype.newbyteorder(">" if big else "<"))
    ds.PixelData = array.tobytes() + b"\0" * (array.nbytes % 2)
    ds["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    if not packed:
        return
    ds["PixelData"].is_undefined_length = False
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if array.ndim >= 3 and array.shape[-1] == 3:
        ds.PhotometricInterpretation = "RGB"
    else:
        ds.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg", generate_instance_uid=False)


def _comment_stream(ds: Any, person: Person) -> None:
    """A comment with the identifier in each compressed JPEG or JPEG 2000 frame."""
    if not ds.file_meta.TransferSyntaxUID.is_compressed or ds.file_meta.TransferSyntaxUID.name == "RLE Lossless":
        return
    text = person.identifier.encode()
    frames = list(generate_frames(ds.PixelData, number_of_frames=int(ds.get("NumberOfFrames") or 1)))
    ds.PixelData = encapsulate([_with_comment(frame, text) for frame in frames], has_bot=False)


def _with_comment(frame: bytes, text: bytes) -> bytes:
    if frame[:2] == b"\xff\xd8":
        return frame[:2] + b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text + frame[2:]
    if frame[:4] == b"\xff\x4f\xff\x51":
        end = 4 + int.from_bytes(frame[4:6], "big")
        return frame[:end] + b"\xff\x64" + (len(text) + 4).to_bytes(2, "big") + b"\0\1" + text + frame[end:]
    return frame


def files_of(folder: Path) -> Iterator[Path]:
    """Every file below a folder."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
