#!/bin/sh
# Train on ffhq with the paper's settings.
. "$(dirname "$0")/preset.sh"
