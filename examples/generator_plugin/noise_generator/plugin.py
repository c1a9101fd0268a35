"""What the harness loads: the option `--noise`, and the generator that it chooses."""

from pathlib import Path

from harness.contract import UserError
from harness.planning.generators import CommandGenerator, DrawOption
from noise_generator import __version__


class Noise:
    options = (DrawOption("noise", "Draw grey noise of this amplitude, in levels.", metavar="LEVELS"),)

    def generator(self, values, context):
        if not str(values["noise"]).isdigit() or not 0 < int(values["noise"]) < 128:
            raise UserError(f"--noise {values['noise']}: is not a whole number from 1 to 127; give one.")
        command = ("{python}", "-m", "noise_generator.draw", "--amplitude", str(values["noise"]))
        return CommandGenerator(command=command, cwd=Path.cwd(), version=__version__, gpus=context.gpus, name="noise")


NOISE = Noise()
