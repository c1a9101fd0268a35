"""`gear presets`: the configurations that come with the package, and the external files they need."""

from __future__ import annotations

import json

import click

from gear.cli.base import Command
from harness.contract.errors import UserError


@click.command(cls=Command)
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="Print nothing; exit with status 2 if NAME is not a preset.")
def presets(name: str | None, check: bool) -> None:
    """List the presets, or show one with the files it needs.

    \b
      gear presets                           all presets, and how their names are built
      gear presets imagenet-l-ibq-dinov3     all its values; which weight files are here, and how to get the others

    Change any field with --set, e.g. gear train e2e --preset imagenet-xl-vq --set gear.temperature=0.05 ...
    """
    if check and name is not None:
        from gear.presets import read_preset

        read_preset(name)
    elif check:
        raise UserError("--check needs the NAME of a preset.")
    else:
        click.echo(_all() if name is None else _one(name))


def _all() -> str:
    from gear.presets import families, single_presets

    lines = [f"{name:16}{about}" for name, about in single_presets().items()]
    for family in families():
        lines += ["", family.pattern, f"  {family.about}; for example {', '.join(list(family.names())[:3])}"]
        for axis in family.axes:
            lines.append(f"  {axis.name.upper()}" + (f"  [{axis.default}]" if axis.default else ""))
            lines += [f"    {value:15}{choice.get('about', '')}" for value, choice in axis.values.items()]
    return "\n".join(lines)


def _one(name: str) -> str:
    import yaml

    from gear.config import load_config
    from gear.required_files import required_files

    config = load_config(name)
    plain = json.loads(json.dumps(config.to_dict()))
    text: str = yaml.safe_dump(plain, sort_keys=False)
    needs = [f"# {need.state}" for need in required_files(config)]
    return "\n".join([text.rstrip(), "# external files:" if needs else "# needs no external file", *needs])
