"""The published way to call `pof3d convert`: python -m training.legacy OLD.pkl NEW.safetensors."""

if __name__ == "__main__":
    from pof3d.commands.convert import main

    main()
