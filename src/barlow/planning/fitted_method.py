"""A method with the sizes of the encoder's feature maps, where its section leaves them to be measured."""

from dataclasses import asdict

from barlow.nets.maps import measured_maps
from barlow.nets.stems import takes_small_stem
from barlow.planning import choices
from barlow.recipe import schema
from barlow.recipe.changes import override
from barlow.recipe.messages import RecipeError
from barlow.recipe.schema import CUSTOM, RELATIVE_SIZES, Recipe
from barlow.size import Size, scaled


def with_maps(chosen: Recipe, channels: int, image_size: Size) -> Recipe:
    """The recipe with the sizes of the encoder's maps, where its method has them to be measured.

    Args:
        chosen: the recipe.
        channels: of the images.
        image_size: of the views whose size is `auto`.

    Raises:
        ValueError: the encoder has no such maps, or was given in Python and nothing can be measured yet.
    """
    wanted = {key: value for key, value in chosen.method.items() if key in ("features", "maps")}
    if "auto" not in wanted.values():
        return chosen
    encoder = chosen.encoder
    if encoder.name.startswith(CUSTOM):
        raise RecipeError(
            f"method.maps is auto, and the encoder {encoder.name} was given in Python: give --method.features and "
            "--method.maps, a list with the height, width and channels of each level's map"
        )
    (given,) = [op["size"] for op in chosen.views[0] if "size" in op]
    size = scaled(image_size, RELATIVE_SIZES[given]) if isinstance(given, str) else given
    stem = choices.stem(encoder.stem, image_size, takes_small_stem(encoder.name))
    method = chosen.build_method()
    features, maps = measured_maps(
        {"name": encoder.name, **encoder.built, "stem": stem}, channels, size, method.levels, method.border
    )
    found = asdict(method.resolved(features, maps))
    return schema.check(override(chosen.as_dict(), {f"method.{key}": found[key] for key in wanted}))
