"""Make and check data sets. `python dataset_tool.py --help` lists the commands."""

from pof3d.commands.dataset_tool import main

if __name__ == "__main__":
    main()
