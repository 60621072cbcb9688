#!/bin/sh
# Train on cats with the paper's settings.
. "$(dirname "$0")/preset.sh"
