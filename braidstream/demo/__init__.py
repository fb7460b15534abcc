"""What the demo of any pipeline needs: a broker, its workers, what comes out of them, and a summary in the end."""

from braidstream.demo.command import play
from braidstream.demo.figures import Tally, line, tally
from braidstream.demo.run import SLACK, Run, Worker, running
from braidstream.demo.show import Show
from braidstream.demo.watch import Follow, Seen

__all__ = ["SLACK", "Follow", "Run", "Seen", "Show", "Tally", "Worker", "line", "play", "running", "tally"]
