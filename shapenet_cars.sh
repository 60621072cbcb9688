#!/bin/sh
# Train on shapenet_cars with the paper's settings.
. "$(dirname "$0")/preset.sh"
