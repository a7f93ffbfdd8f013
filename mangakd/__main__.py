"""`python -m mangakd train …` is `mangakd train …`; torchrun starts it so: `torchrun -m mangakd train …`."""

from mangakd.cli.console import main

if __name__ == "__main__":
    main()
