"""The encoders that `barlow list encoders` shows. Any other timm name is accepted as well."""

TESTED = {
    "resnet18": "11.2 M parameters, 512 features: the papers' network for small images",
    "resnet50": "23.5 M parameters, 2048 features: the papers' network for ImageNet",
    "regnetx_002": "2.3 M parameters, 368 features: light, regular",
    "convnext_atto": "3.4 M parameters, 320 features",
    "vit_tiny_patch16_224": "5.5 M parameters, 192 features; for small images --encoder.options '{patch_size: 4}'",
}
"""One encoder of each family, with the size and the number of features that the tests hold it to."""
