"""`python -m runtime.cli`: the same as `neds-rt`."""

from runtime.start import keep_to_ours

if __name__ == "__main__":
    keep_to_ours()  # before anything else is imported: the current folder is still searched first
    from runtime.cli.main import main

    main()
