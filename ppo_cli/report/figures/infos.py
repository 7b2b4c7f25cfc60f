"""What an environment says of itself in `info`, over the course of training."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ppo_cli.report.comparison import Comparison, Summary
from ppo_cli.report.figures.curves import axes_width
from ppo_cli.report.figures.style import Look, Style, legend, panels, plain_ticks, wrapped
from ppo_cli.report.statistics import common_span, interpolate, smoothed_curve
