"""Measure a trained network. `python calc_metrics.py --help` lists the options."""

from pof3d.commands.calc_metrics import main

if __name__ == "__main__":
    main()
