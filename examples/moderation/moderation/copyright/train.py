"""`python -m moderation.copyright.train`: train the model of the probability that a video infringes a copyright."""

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moderation.copyright.distance import NearestDistance
from moderation.copyright.features import FEATURES, TRUSTED, bits
from moderation.rules import rule_task
from moderation.synthetic.fingerprints import library
from moderation.training import training_command

COPYRIGHT = rule_task(
    "copyright",
    FEATURES,
    make_pipeline(
        NearestDistance(bits(list(map(bytes, library())))),
        StandardScaler(),
        LogisticRegression(),
    ),
    precision={"remove": 0.95, "review": 0.8},
    trusted=TRUSTED,
)

main = training_command(COPYRIGHT)

if __name__ == "__main__":
    main(prog_name="python -m moderation.copyright.train")
