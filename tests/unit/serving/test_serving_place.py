"""Complaints about a YAML text: the place, the line, and what was probably meant."""

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from serving.place import complaint, keys_at, line_of


class Wheel(BaseModel):
    model_config = ConfigDict(extra="forbid")

    spokes: int = 32
    tyre: str = "plain"


class Bicycle(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None

    @model_validator(mode="after")
    def _two(self) -> "Bicycle":
        if len(self.wheels) == 1:
            raise ValueError("wheels.0 is alone")
        return self


TEXT = """
name: one
wheels:
  - {spokes: 28}
  - spokes: 32
    tyre: wide
spare:
  spokes: 20
"""


def said_of(text: str) -> str:
    import yaml

    with pytest.raises(ValidationError) as error:
        Bicycle.model_validate(yaml.safe_load(text))
    return complaint(Bicycle, error.value, text)


@pytest.mark.parametrize(
    ("location", "line"), [(("name",), 2), (("wheels",), 3), (("wheels", 1, "tyre"), 6), (("spare", "colour"), 7), ((), 1)]
)
def test_line_of_a_key_is_counted_from_one(location: tuple[int | str, ...], line: int) -> None:
    assert line_of(TEXT, location) == line


def test_mistyped_key_deep_inside_is_named_with_its_line_and_the_nearest_key() -> None:
    said = said_of(TEXT.replace("    tyre: wide", "    tire: wide"))
    assert said == "wheels.1.tire (line 6) is no key that daemun knows; did you mean tyre?"


def test_key_unlike_any_lists_those_that_are_known_there() -> None:
    assert said_of(TEXT.replace("spare:\n  spokes: 20", "spare: {zzz: 1}")).endswith("here it knows spokes, tyre")


def test_wrong_value_is_named_with_its_line() -> None:
    said = said_of(TEXT.replace("spokes: 32", "spokes: many"))
    assert said.startswith("wheels.1.spokes (line 5): ")


def test_mistyped_key_is_said_before_the_missing_one_that_it_was_meant_to_be() -> None:
    assert said_of(TEXT.replace("name: one", "nam: one")) == "nam (line 2) is no key that daemun knows; did you mean name?"


def test_rule_of_the_whole_model_that_names_a_place_gets_its_line() -> None:
    assert said_of("name: one\nwheels:\n  - {spokes: 28}\n") == "line 3: wheels.0 is alone"


def test_text_that_is_no_mapping_is_said_so() -> None:
    assert said_of("just text").startswith("the entry: ")


def test_known_keys_are_those_of_the_model_at_the_place() -> None:
    assert list(keys_at(Bicycle, ("wheels", 0))) == ["spokes", "tyre"]
    assert list(keys_at(Bicycle, ())) == ["name", "wheels", "spare"]
