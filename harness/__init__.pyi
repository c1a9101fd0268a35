from harness.api import BadSamples as BadSamples
from harness.api import EnvironmentFailure as EnvironmentFailure
from harness.api import MissingAsset as MissingAsset
from harness.api import Plan as Plan
from harness.api import Run as Run
from harness.api import RunFailed as RunFailed
from harness.api import UserError as UserError
from harness.api import list_runs as list_runs
from harness.api import load_run as load_run
from harness.api import plan as plan
from harness.api import prepare as prepare
from harness.api import run as run
from harness.api import score as score
from harness.contract.record import Metric as Metric
from harness.contract.record import ScoreRecord as ScoreRecord

__version__: str
