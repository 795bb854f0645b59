"""Hand-designed features of an image: what is inside an outline, or the whole image where there is none.

Definitions follow the reference manual of the Image Biomarker Standardisation Initiative (IBSI, version 11,
arXiv:1612.07003; Zwanenburg et al., Radiology 295:328, 2020) where it has them; sections are cited with each
function. Names are stable: the same kind of image (planes or volumes, grey or colour, with outline or without)
always has the same features in the same order. Nothing is said of an image's size or bit depth, which tell of
the scanner rather than of the patient.
"""

from vesalius.classical.radiomics.features import features_of, image_features

__all__ = ["features_of", "image_features"]
